-- Promises: a page of runs, newest first. Index: run_newest, or run_newest_of_subject when a subject is named.
SELECT r.run_id, r.tenant_id, r.subject, r.workflow, r.title, r.created_us, h.status, h.seq
FROM runwire.run r JOIN runwire.head h USING (run_id)
WHERE r.tenant_id = %(tenant)s::uuid
  AND (%(subject)s::text IS NULL OR r.subject = %(subject)s::text)
  AND (%(workflow)s::text IS NULL OR r.workflow = %(workflow)s::text)
  AND (%(status)s::text IS NULL OR h.status = %(status)s::text)
  AND (%(before)s::uuid IS NULL OR r.run_id < %(before)s::uuid)
ORDER BY r.run_id DESC
LIMIT %(limit)s::integer
