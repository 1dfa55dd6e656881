-- Promises: how far the log is sealed and signed, since when nothing was signed, and whether and why it takes no events.
-- One row. Index: the primary keys of block and checkpoint.
SELECT coalesce((SELECT max(block_no) FROM runwire.block), 0),
       coalesce((SELECT max(size) FROM runwire.checkpoint), 0),
       (SELECT stored_at FROM runwire.checkpoint ORDER BY size DESC LIMIT 1),
       g.shut, g.why
FROM runwire.gate g
