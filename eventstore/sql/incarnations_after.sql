-- Promises: what operators acknowledged in blocks past this number. Index: block's primary key.
SELECT statement FROM runwire.block WHERE block_no > %(after)s::bigint AND get_byte(header, 0) = 4 ORDER BY block_no
