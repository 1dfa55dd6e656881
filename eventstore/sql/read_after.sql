-- Promises: the next events of one run in order, a prefix of what follows. Index: the partition's primary key.
SELECT run_id, seq, epoch, type, version, occurred_us, recorded_us, encoding, key_id, body, chain
FROM runwire.event
WHERE run_id = %(run)s::uuid AND seq > %(after)s::integer
ORDER BY seq
LIMIT %(limit)s::integer
