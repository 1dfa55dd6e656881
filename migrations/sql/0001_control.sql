-- Promises: the API's own way into the log, under the same lock and on the same chain as the worker's, without an epoch.

-- Stores the accepted run with its input, once per idempotency key. Verdicts: ok, replayed (same key, same request: the
-- run of then), mismatch (same key, another request), out_of_range (the run id is not of this hour: no partition would
-- be sure to take it, and a run dated in the past could be invented).
CREATE FUNCTION runwire.open_run(
    p_run uuid, p_tenant uuid, p_subject text, p_workflow text, p_title text, p_key text, p_body_digest bytea,
    p_input bytea, p_version smallint, p_occurred bigint, p_accepted bytea
) RETURNS TABLE (verdict text, run_id uuid, recorded_us bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_before runwire.idempotency;
    v_at     bigint := runwire.clock_us();
    v_chain  bytea;
BEGIN
    IF p_run < runwire.uuid_floor(clock_timestamp() - interval '5 minutes')
       OR p_run > runwire.uuid_floor(clock_timestamp() + interval '5 minutes') THEN
        RETURN QUERY SELECT 'out_of_range', p_run, v_at;
        RETURN;
    END IF;
    IF p_key IS NOT NULL THEN
        INSERT INTO runwire.idempotency (tenant_id, subject, key, body_digest, run_id)
        VALUES (p_tenant, p_subject, p_key, p_body_digest, p_run) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT * INTO v_before FROM runwire.idempotency i
            WHERE i.tenant_id = p_tenant AND i.subject = p_subject AND i.key = p_key;
            RETURN QUERY SELECT CASE WHEN v_before.body_digest = p_body_digest THEN 'replayed' ELSE 'mismatch' END,
                v_before.run_id, v_at;
            RETURN;
        END IF;
    END IF;
    v_chain := runwire.link(runwire.genesis(p_run, p_tenant), 1, 1, 0, v_at,
                            runwire.listing(p_version, 'accepted', 0::smallint, NULL, p_occurred, p_accepted));
    INSERT INTO runwire.run (run_id, tenant_id, subject, workflow, title, created_us)
    VALUES (p_run, p_tenant, p_subject, p_workflow, p_title, v_at);
    INSERT INTO runwire.input (run_id, body) VALUES (p_run, p_input);
    INSERT INTO runwire.event (run_id, seq, epoch, version, encoding, type, occurred_us, recorded_us, key_id, chain, body)
    VALUES (p_run, 1, 0, p_version, 0, 'accepted', p_occurred, v_at, NULL, v_chain, p_accepted);
    INSERT INTO runwire.head (run_id, tenant_id, status, seq, chain, recorded_us, handed_at)
    VALUES (p_run, p_tenant, 'queued', 1, v_chain, v_at, clock_timestamp());
    RETURN QUERY SELECT 'ok', p_run, v_at;
END;
$$;

-- One control event. Verdicts: ok, already (this run was asked to stop before), closed, refused, unknown. An unowned
-- run comes out with `owned` false: nobody will see the request unless it is handed over.
CREATE FUNCTION runwire.control(
    p_run uuid, p_type text, p_version smallint, p_occurred bigint, p_body bytea
) RETURNS TABLE (verdict text, seq integer, status text, owned boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    h       runwire.head;
    v_next  text;
    v_at    bigint;
    v_chain bytea;
    v_owned boolean;
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
    UPDATE runwire.head SET seq = h.seq + 1, chain = v_chain, recorded_us = v_at, status = v_next, cancel = true,
        handed_at = CASE WHEN v_owned THEN handed_at ELSE clock_timestamp() END
    WHERE run_id = h.run_id;
    RETURN QUERY SELECT 'ok', h.seq + 1, v_next, v_owned;
END;
$$;
