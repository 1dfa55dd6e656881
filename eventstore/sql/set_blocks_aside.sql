-- Promises: the blocks from this number on are out of the log and kept as they were found: how many, and the digest of their
-- headers. For an operator only.
SELECT blocks, headers FROM runwire.set_blocks_aside(%(from)s::bigint)
