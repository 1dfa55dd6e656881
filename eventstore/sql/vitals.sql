-- Promises: how the log stands, one row, at a cost that does not grow with the log: partitions from the catalogue, the
-- gate, the newest block and checkpoint by key, and of the newest `runs` runs those with events that no block names, since
-- when. Index: the primary keys of head (backwards), sealed, event, block and checkpoint. An index on when a head moved
-- would cost every append; a sealer that stands still leaves new runs unsealed before all others, so these tell.
WITH newest AS MATERIALIZED (
    SELECT h.run_id, h.seq, h.recorded_us FROM runwire.head h ORDER BY h.run_id DESC LIMIT %(runs)s::integer
), unsealed AS MATERIALIZED (
    SELECT coalesce(e.recorded_us, n.recorded_us) AS since_us
    FROM newest n
    LEFT JOIN LATERAL (SELECT s.seq FROM runwire.sealed s WHERE s.run_id = n.run_id LIMIT 1) s ON true
    LEFT JOIN LATERAL (
        SELECT e.recorded_us FROM runwire.event e WHERE e.run_id = n.run_id AND e.seq = coalesce(s.seq, 0) + 1 LIMIT 1
    ) e ON true
    WHERE s.seq IS NULL OR n.seq > s.seq
), kept AS MATERIALIZED (
    SELECT size, stored_at FROM runwire.checkpoint ORDER BY size DESC LIMIT 1
)
SELECT
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    (SELECT coalesce(array_agg(pg_get_expr(c.relpartbound, c.oid)), '{}')
     FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'runwire.event'::regclass AND NOT i.inhdetachpending),
    (SELECT count(*) FROM unsealed),
    (SELECT min(since_us) FROM unsealed),
    (SELECT coalesce(max(block_no), 0) FROM runwire.block),
    (SELECT coalesce(max(size), 0) FROM kept),
    (SELECT (extract(epoch FROM stored_at) * 1000000)::bigint FROM kept),
    (SELECT header FROM runwire.block WHERE block_no = (SELECT coalesce(max(size), 0) + 1 FROM kept)),
    (SELECT block_no FROM runwire.followed),
    (SELECT header FROM runwire.block WHERE block_no = (SELECT block_no + 1 FROM runwire.followed)),
    (SELECT count(*) FROM runwire.mismatch),
    (SELECT shut FROM runwire.gate)
