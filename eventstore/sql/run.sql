-- Promises: whose run it is, and of which workflow. Index: the primary keys of run and head.
SELECT r.run_id, r.tenant_id, r.subject, r.workflow, r.title, r.created_us, h.status, h.seq
FROM runwire.run r JOIN runwire.head h USING (run_id)
WHERE r.run_id = %(run)s::uuid AND r.tenant_id = %(tenant)s::uuid
