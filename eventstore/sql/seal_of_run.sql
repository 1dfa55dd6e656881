-- Promises: the last block that names a run. Index: the primary keys of sealed and block.
SELECT b.block_no, b.header, b.entries, b.statement, b.firsts
FROM runwire.sealed s JOIN runwire.block b USING (block_no)
WHERE s.run_id = %(run)s::uuid
