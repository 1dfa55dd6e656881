-- Promises: who stands in the way of one process at this moment, longest transaction first; no rows when nobody does.
-- Who may not look into others' sessions is told their process and user alone.
SELECT b.pid, a.usename, nullif(a.application_name, ''), a.state, extract(epoch FROM clock_timestamp() - a.xact_start)::float8
FROM (SELECT DISTINCT unnest(pg_blocking_pids(%(pid)s::integer))) AS b (pid) LEFT JOIN pg_stat_activity a USING (pid)
ORDER BY a.xact_start NULLS LAST
