-- Promises: a block that this transaction has set aside. Index: block_set_aside's primary key.
SELECT block_no, header, entries, statement, firsts FROM runwire.block_aside(%(no)s::bigint)
