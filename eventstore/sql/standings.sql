-- Promises: whose runs these are and where they stand, for many at once. Index: the primary keys of run and head.
SELECT r.run_id, r.tenant_id, r.subject, r.workflow, r.title, r.created_us, h.status, h.seq, h.chain
FROM unnest(%(runs)s::uuid[]) AS asked (run_id)
JOIN runwire.run r USING (run_id)
JOIN runwire.head h USING (run_id)
