-- Promises: runwire.suspend as it was before runs had children. For a downgrade only.
CREATE OR REPLACE FUNCTION runwire.suspend(p_run uuid, p_epoch integer, p_seq integer, p_due bigint) RETURNS text
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
