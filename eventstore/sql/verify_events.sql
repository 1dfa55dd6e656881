-- Promises: the whole log in the order of runs and seqs, page by page. Index: the partitions' primary keys.
SELECT run_id, seq, epoch, type, version, occurred_us, recorded_us, encoding, key_id, body, chain
FROM runwire.event
WHERE (run_id, seq) > (%(run)s::uuid, %(seq)s::integer)
ORDER BY run_id, seq
LIMIT %(limit)s::integer
