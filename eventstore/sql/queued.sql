-- Promises: how many runs of a tenant and of a caller were never begun, counted no further than their bounds, and these.
-- Index: queue_lanes.
WITH bound AS (
    SELECT coalesce(t.queued_max, %(tenant_max)s::integer) AS tenant_max,
        coalesce(t.caller_queued_max, %(caller_max)s::integer) AS caller_max
    FROM runwire.tenant t WHERE t.tenant_id = %(tenant)s::uuid
)
SELECT
    (SELECT count(*) FROM (
        SELECT FROM runwire.queue q WHERE q.waits AND q.fresh AND q.tenant_id = %(tenant)s::uuid LIMIT b.tenant_max + 1) n),
    b.tenant_max,
    (SELECT count(*) FROM (
        SELECT FROM runwire.queue q
        WHERE q.waits AND q.fresh AND q.tenant_id = %(tenant)s::uuid AND q.subject = %(subject)s::text
        LIMIT b.caller_max + 1) n),
    b.caller_max
FROM bound b
