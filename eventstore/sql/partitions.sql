-- Promises: the bounds of every partition that takes events now, and the database's clock. Catalogue only.
SELECT coalesce(array_agg(pg_get_expr(c.relpartbound, c.oid)), '{}'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'runwire.event'::regclass AND NOT i.inhdetachpending
