-- Promises: every block that is an incarnation, in order. Reads the headers of all blocks: for verification only.
SELECT block_no, entries, statement FROM runwire.block WHERE get_byte(header, 0) = 4 ORDER BY block_no
