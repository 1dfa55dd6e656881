-- Promises: a question has at most one decision, whoever answers at the same moment: the head's lock decides, and the log
-- says which came first. Every control event brings a resting run back.

-- One control event. Verdicts: ok, already (this run was asked to stop before), answered (this question has its decision:
-- the seq is that one's), not_asked (there is no question at the seq that the decision names), closed, refused, unknown.
-- An unowned run comes out with `owned` false: nobody will see what was written unless it is handed over.
CREATE OR REPLACE FUNCTION runwire.control(
    p_run uuid, p_type text, p_version smallint, p_occurred bigint, p_body bytea
) RETURNS TABLE (verdict text, seq integer, status text, owned boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    h        runwire.head;
    v_next   text;
    v_at     bigint;
    v_chain  bytea;
    v_owned  boolean;
    v_asked  integer;
    v_before integer;
BEGIN
    IF NOT EXISTS (SELECT FROM runwire.transition t WHERE t.type = p_type AND t.writer = 'api') THEN
        RAISE EXCEPTION 'control: % is not a control event', p_type USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT * INTO h FROM runwire.head WHERE run_id = p_run FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown', NULL::integer, NULL::text, NULL::boolean;
        RETURN;
    END IF;
    v_owned := coalesce(h.lease_until > clock_timestamp(), false);
    -- Before the end of the run is looked at: who answered and never heard back asks again, and is told the same.
    IF p_type = 'decision' THEN
        v_asked := (convert_from(p_body, 'UTF8')::jsonb ->> 'escalation')::integer;
        IF NOT EXISTS (SELECT FROM runwire.event e WHERE e.run_id = p_run AND e.seq = v_asked AND e.type = 'escalation')
        THEN
            RETURN QUERY SELECT 'not_asked', h.seq, h.status, v_owned;
            RETURN;
        END IF;
        SELECT e.seq INTO v_before FROM runwire.event e
        WHERE e.run_id = p_run AND e.seq > v_asked AND e.type = 'decision'
          AND (convert_from(e.body, 'UTF8')::jsonb ->> 'escalation')::integer = v_asked;
        IF FOUND THEN
            RETURN QUERY SELECT 'answered', v_before, h.status, v_owned;
            RETURN;
        END IF;
    END IF;
    IF h.status IN ('completed', 'failed', 'cancelled') THEN
        RETURN QUERY SELECT 'closed', h.seq, h.status, v_owned;
        RETURN;
    END IF;
    IF p_type = 'cancel_requested' AND h.cancel THEN
        RETURN QUERY SELECT 'already', h.seq, h.status, v_owned;
        RETURN;
    END IF;
    SELECT next INTO v_next FROM runwire.transition t WHERE t.status = h.status AND t.type = p_type AND t.writer = 'api';
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'refused', h.seq, h.status, v_owned;
        RETURN;
    END IF;
    v_at := greatest(runwire.clock_us(), h.recorded_us);
    v_chain := runwire.link(h.chain, h.seq + 1, 1, 0, v_at,
                            runwire.listing(p_version, p_type, 0::smallint, NULL, p_occurred, p_body));
    INSERT INTO runwire.event (run_id, seq, epoch, version, encoding, type, occurred_us, recorded_us, key_id, chain, body)
    VALUES (h.run_id, h.seq + 1, 0, p_version, 0, p_type, p_occurred, v_at, NULL, v_chain, p_body);
    UPDATE runwire.head SET seq = h.seq + 1, chain = v_chain, recorded_us = v_at, status = v_next,
        cancel = h.cancel OR p_type = 'cancel_requested', due_at = NULL,
        handed_at = CASE WHEN v_owned THEN handed_at ELSE clock_timestamp() END
    WHERE run_id = h.run_id;
    RETURN QUERY SELECT 'ok', h.seq + 1, v_next, v_owned;
END;
$$;

-- The decision that nobody made in time: control's verdicts, and `early` while the question's wait is not over by the
-- database's clock. How long it may wait is what the question itself says.
CREATE FUNCTION runwire.lapse(p_run uuid, p_version smallint, p_occurred bigint, p_body bytea)
RETURNS TABLE (verdict text, seq integer, status text, owned boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_said jsonb := convert_from(p_body, 'UTF8')::jsonb;
    v_due  bigint;
BEGIN
    IF v_said ->> 'because' IS DISTINCT FROM 'wait_over' THEN
        RAISE EXCEPTION 'lapse: this decision is somebody''s answer' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT e.recorded_us + ((convert_from(e.body, 'UTF8')::jsonb ->> 'wait_s')::numeric * 1000000)::bigint INTO v_due
    FROM runwire.event e
    WHERE e.run_id = p_run AND e.seq = (v_said ->> 'escalation')::integer AND e.type = 'escalation';
    IF runwire.clock_us() < v_due THEN
        RETURN QUERY SELECT 'early', NULL::integer, NULL::text, NULL::boolean;
    ELSE
        RETURN QUERY SELECT * FROM runwire.control(p_run, 'decision', p_version, p_occurred, p_body);
    END IF;
END;
$$;
