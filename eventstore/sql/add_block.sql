-- Promises: the next block, if this epoch still leads. Index: block's primary key.
SELECT runwire.add_block(%(epoch)s::integer, %(lease_s)s::double precision, %(no)s::bigint, %(header)s::bytea,
                         %(entries)s::bytea, %(firsts)s::bytea, %(nodes)s::bytea)
