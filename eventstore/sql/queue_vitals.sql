-- Promises: how many runs wait for their turn and how many for a worker that covers their version, and since when the oldest
-- of each does. Reads what is in line whole: a row per run that waits. Index: queue_kinds.
SELECT count(*) FILTER (WHERE v.covered),
    coalesce(extract(epoch FROM clock_timestamp() - min(q.since) FILTER (WHERE v.covered)), 0),
    count(*) FILTER (WHERE v.covered IS NULL),
    coalesce(extract(epoch FROM clock_timestamp() - min(q.since) FILTER (WHERE v.covered IS NULL)), 0)
FROM runwire.queue q
LEFT JOIN (SELECT c.workflow, c.version, true AS covered FROM runwire.coverage c
           WHERE c.seen_at > clock_timestamp() - make_interval(secs => %(live_s)s::double precision)) v
    ON v.workflow = q.workflow AND v.version = q.version
WHERE q.waits
