-- Promises: every run that a head or the catalogue names, in order, page by page. Index: the primary keys of head and run.
SELECT run_id, coalesce(h.tenant_id, r.tenant_id), r.tenant_id, h.seq, h.chain
FROM runwire.head h FULL JOIN runwire.run r USING (run_id)
WHERE run_id > %(run)s::uuid
ORDER BY run_id
LIMIT %(limit)s::integer
