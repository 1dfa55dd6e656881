-- Promises: the next blocks in order. Numbers are committed in order and without gaps, so `> n` never skips one. Index:
-- block's primary key.
SELECT block_no, header, entries, statement, firsts
FROM runwire.block
WHERE block_no > %(after)s::bigint
ORDER BY block_no
LIMIT %(limit)s::integer
