-- Promises: the sealed runs whose head is gone or behind its seal, or whose sealed event is no longer the one that was
-- sealed. Reads head and sealed whole, and one event for each run that has moved since its seal: for a start.
SELECT s.run_id, s.seq, s.chain, h.tenant_id, coalesce(h.seq, 0), h.chain,
       coalesce(h.status IN ('completed', 'failed', 'cancelled'), false)
FROM runwire.sealed s LEFT JOIN runwire.head h USING (run_id)
WHERE s.seq > 0 AND (
    h.run_id IS NULL OR h.seq < s.seq OR (h.seq = s.seq AND h.chain <> s.chain)
    OR (h.seq > s.seq AND NOT EXISTS (
        SELECT FROM runwire.event e WHERE e.run_id = s.run_id AND e.seq = s.seq AND e.chain = s.chain
    ))
)
ORDER BY s.run_id
