-- Promises: where each run was sealed last, once more from the blocks. Reads all blocks.
SELECT runwire.rebuild_sealed(%(epoch)s::integer)
