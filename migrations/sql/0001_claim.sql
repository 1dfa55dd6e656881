-- Promises: one owner per run at a time, decided by the database's clock, and every older owner fenced from then on.

CREATE FUNCTION runwire.claim(p_run uuid, p_owner text, p_lease_s double precision)
RETURNS TABLE (verdict text, tenant_id uuid, epoch integer, seq integer, status text, cancel boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    h runwire.head;
BEGIN
    SELECT * INTO h FROM runwire.head WHERE run_id = p_run FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown', NULL::uuid, NULL::integer, NULL::integer, NULL::text, NULL::boolean;
    ELSIF h.status IN ('completed', 'failed', 'cancelled') THEN
        RETURN QUERY SELECT 'closed', h.tenant_id, h.epoch, h.seq, h.status, h.cancel;
    ELSIF h.lease_until > clock_timestamp() THEN
        RETURN QUERY SELECT 'held', h.tenant_id, h.epoch, h.seq, h.status, h.cancel;
    ELSE
        UPDATE runwire.head SET epoch = h.epoch + 1, owner = p_owner, batch_no = 0, batch_first = NULL, batch_last = NULL,
            lease_until = clock_timestamp() + make_interval(secs => p_lease_s)
        WHERE run_id = p_run;
        RETURN QUERY SELECT 'claimed', h.tenant_id, h.epoch + 1, h.seq, h.status, h.cancel;
    END IF;
END;
$$;

-- Gives the run back at once, so that a worker that stops on purpose does not make the next one wait for its lease.
CREATE FUNCTION runwire.release(p_run uuid, p_epoch integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    UPDATE runwire.head SET lease_until = NULL, handed_at = '-infinity' WHERE run_id = p_run AND epoch = p_epoch;
    RETURN FOUND;
END;
$$;

-- Runs that nobody works on: no live lease, not ended, and last handed over a while ago. Marks them as handed over now,
-- so that a long queue is offered again at a bounded rate and two sweeps do not offer the same run.
CREATE FUNCTION runwire.forgotten(p_after_s double precision, p_limit integer)
RETURNS TABLE (run_id uuid, epoch integer, status text, cancel boolean)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH lost AS (
        SELECT h.run_id FROM runwire.head h
        WHERE h.status NOT IN ('completed', 'failed', 'cancelled')
          AND (h.lease_until IS NULL OR h.lease_until < clock_timestamp())
          AND h.handed_at < clock_timestamp() - make_interval(secs => p_after_s)
        ORDER BY h.run_id LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE runwire.head h SET handed_at = clock_timestamp() FROM lost WHERE h.run_id = lost.run_id
    RETURNING h.run_id, h.epoch, h.status, h.cancel
$$;
