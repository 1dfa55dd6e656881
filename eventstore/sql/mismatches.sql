-- Promises: the sealed runs that were found not to fit their chain, the last found first.
SELECT run_id, block_no, seq, fault, found_at FROM runwire.mismatch ORDER BY found_at DESC LIMIT %(limit)s::integer
