-- Promises: a block as it stands, under the next number. For an operator only. Index: block's primary key.
SELECT runwire.put_block(%(no)s::bigint, %(header)s::bytea, %(entries)s::bytea, %(statement)s::bytea,
                         %(firsts)s::bytea, %(nodes)s::bytea, true)
