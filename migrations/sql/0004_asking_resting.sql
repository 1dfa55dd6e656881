-- Promises: a run of which all waits has no owner and holds no worker's place until it is due by the database's clock or
-- the API writes to it. What was written while its owner was going is not slept through.

-- All of the run waits. Answers `parked`; `moved` when the log holds something behind p_seq, the last that its owner has
-- read, so that somebody should look at once; `fenced` when it is not the owner any more.
CREATE FUNCTION runwire.suspend(p_run uuid, p_epoch integer, p_seq integer, p_due bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    h       runwire.head;
    v_moved boolean;
BEGIN
    SELECT * INTO h FROM runwire.head WHERE run_id = p_run FOR NO KEY UPDATE;
    IF NOT FOUND OR h.epoch IS DISTINCT FROM p_epoch OR h.status IN ('completed', 'failed', 'cancelled') THEN
        RETURN 'fenced';
    END IF;
    v_moved := h.cancel OR h.seq IS DISTINCT FROM p_seq;
    UPDATE runwire.head SET lease_until = NULL, handed_at = '-infinity', parked = h.parked + 1,
        due_at = CASE WHEN NOT v_moved THEN 'epoch'::timestamptz + p_due * interval '1 microsecond' END
    WHERE run_id = p_run;
    RETURN CASE WHEN v_moved THEN 'moved' ELSE 'parked' END;
END;
$$;

-- As before, and `waiting` for a run that rests; a claimed one rests no more.
DROP FUNCTION runwire.claim;
CREATE FUNCTION runwire.claim(p_run uuid, p_owner text, p_lease_s double precision)
RETURNS TABLE (verdict text, tenant_id uuid, epoch integer, seq integer, status text, cancel boolean, parked integer)
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
        RETURN QUERY SELECT 'unknown', NULL::uuid, NULL::integer, NULL::integer, NULL::text, NULL::boolean, NULL::integer;
    ELSIF h.status IN ('completed', 'failed', 'cancelled') THEN
        RETURN QUERY SELECT 'closed', h.tenant_id, h.epoch, h.seq, h.status, h.cancel, h.parked;
    ELSIF h.lease_until > clock_timestamp() THEN
        RETURN QUERY SELECT 'held', h.tenant_id, h.epoch, h.seq, h.status, h.cancel, h.parked;
    ELSIF h.due_at > clock_timestamp() THEN
        RETURN QUERY SELECT 'waiting', h.tenant_id, h.epoch, h.seq, h.status, h.cancel, h.parked;
    ELSE
        UPDATE runwire.head SET epoch = h.epoch + 1, owner = p_owner, batch_no = 0, batch_first = NULL, batch_last = NULL,
            lease_until = clock_timestamp() + make_interval(secs => p_lease_s), due_at = NULL
        WHERE run_id = p_run;
        RETURN QUERY SELECT 'claimed', h.tenant_id, h.epoch + 1, h.seq, h.status, h.cancel, h.parked;
    END IF;
END;
$$;

-- As before, without the runs that rest.
CREATE OR REPLACE FUNCTION runwire.forgotten(p_after_s double precision, p_limit integer)
RETURNS TABLE (run_id uuid, epoch integer, status text, cancel boolean)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH lost AS (
        SELECT h.run_id FROM runwire.head h
        WHERE h.status NOT IN ('completed', 'failed', 'cancelled')
          AND (h.lease_until IS NULL OR h.lease_until < clock_timestamp())
          AND (h.due_at IS NULL OR h.due_at <= clock_timestamp())
          AND h.handed_at < clock_timestamp() - make_interval(secs => p_after_s)
        ORDER BY h.run_id LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE runwire.head h SET handed_at = clock_timestamp() FROM lost WHERE h.run_id = lost.run_id
    RETURNING h.run_id, h.epoch, h.status, h.cancel
$$;

DO $$
DECLARE
    thing record;
BEGIN
    FOR thing IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                 WHERE p.pronamespace = 'runwire'::regnamespace AND p.proowner <> 'runwire_owner'::regrole LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runwire_owner', thing.name);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', thing.name);
    END LOOP;
END;
$$;
GRANT EXECUTE ON FUNCTION runwire.claim, runwire.suspend, runwire.lapse TO runwire_worker;
