-- Promises: the stored chain hash of each of these events; a row less for each event that is not there. Index: the
-- partitions' primary keys.
SELECT e.run_id, e.seq, e.chain
FROM unnest(%(runs)s::uuid[], %(seqs)s::integer[]) AS a (run_id, seq)
CROSS JOIN LATERAL (
    SELECT event.run_id, event.seq, event.chain FROM runwire.event WHERE event.run_id = a.run_id AND event.seq = a.seq
) e
