-- Promises: where these runs stand, and whether they still hold the event that is named with each. Index: head's primary
-- key and the partitions'.
SELECT a.run_id, h.tenant_id, coalesce(h.seq, 0), h.chain,
       coalesce(h.status IN ('completed', 'failed', 'cancelled'), false),
       CASE WHEN h.seq = a.seq THEN h.chain = a.chain
            ELSE EXISTS (SELECT FROM runwire.event e WHERE e.run_id = a.run_id AND e.seq = a.seq AND e.chain = a.chain)
                 AND coalesce(h.seq > a.seq, false) END
FROM unnest(%(runs)s::uuid[], %(seqs)s::integer[], %(chains)s::bytea[]) AS a (run_id, seq, chain)
LEFT JOIN runwire.head h USING (run_id)
ORDER BY a.run_id
