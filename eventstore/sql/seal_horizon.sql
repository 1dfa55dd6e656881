-- Promises: the oldest transaction that still runs, and the first that has not begun, as a snapshot of now sees them.
SELECT (pg_snapshot_xmin(pg_current_snapshot())::xid)::text, (pg_snapshot_xmax(pg_current_snapshot())::xid)::text
