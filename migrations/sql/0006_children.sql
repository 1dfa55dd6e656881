-- Promises: a run that another run asks for is opened once, by that run's owner only, for the same caller; and when it has
-- ended, the run that waits for it is woken in the same transaction. Nothing of this needs Redis.

-- Whose child a run is, and by which of its calls. Written once, with the child.
CREATE TABLE runwire.child (
    run_id    uuid PRIMARY KEY,
    parent_id uuid NOT NULL,
    key       text NOT NULL
);
CREATE INDEX child_of ON runwire.child (parent_id);

-- A child has ended while its parent was carried: whoever lays the parent to rest then must look once more.
ALTER TABLE runwire.head ADD COLUMN nudged boolean NOT NULL DEFAULT false;

-- Opens a child. Verdicts: ok (opened, or it was before), fenced (not the parent's owner, or the parent has ended), stopping
-- (the parent was asked to stop), unknown_workflow (nobody has registered it in this version), mismatch (another run has
-- this id, or `accepted` says something else than what is asked for). The caller is always the parent's own.
CREATE FUNCTION runwire.open_child(
    p_parent uuid, p_epoch integer, p_key text, p_run uuid, p_workflow text, p_title text, p_input bytea,
    p_version smallint, p_occurred bigint, p_accepted bytea
) RETURNS TABLE (verdict text, recorded_us bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    h       runwire.head;
    r       runwire.run;
    c       runwire.child;
    v_said  jsonb := convert_from(p_accepted, 'UTF8')::jsonb;
    v_at    bigint;
    v_chain bytea;
BEGIN
    SELECT * INTO h FROM runwire.head WHERE run_id = p_parent FOR NO KEY UPDATE;
    IF NOT FOUND OR h.epoch IS DISTINCT FROM p_epoch OR h.status IN ('completed', 'failed', 'cancelled') THEN
        RETURN QUERY SELECT 'fenced', NULL::bigint;
        RETURN;
    END IF;
    SELECT * INTO c FROM runwire.child WHERE run_id = p_run;
    IF FOUND THEN
        RETURN QUERY SELECT CASE WHEN c.parent_id = p_parent AND c.key = p_key THEN 'ok' ELSE 'mismatch' END,
            (SELECT created_us FROM runwire.run WHERE run_id = p_run);
        RETURN;
    END IF;
    IF h.cancel THEN
        RETURN QUERY SELECT 'stopping', NULL::bigint;
        RETURN;
    END IF;
    SELECT * INTO r FROM runwire.run WHERE run_id = p_parent;
    -- The id was drawn when the intent was stored, which may be a while ago; never before the parent, nor ahead of time.
    IF EXISTS (SELECT FROM runwire.run WHERE run_id = p_run)
       OR p_run <= p_parent OR p_run > runwire.uuid_floor(clock_timestamp() + interval '5 minutes')
       OR v_said ->> 'workflow' IS DISTINCT FROM p_workflow
       OR v_said #>> '{parent,run_id}' IS DISTINCT FROM p_parent::text OR v_said #>> '{parent,key}' IS DISTINCT FROM p_key
       OR v_said #>> '{caller,subject}' IS DISTINCT FROM r.subject
    THEN
        RETURN QUERY SELECT 'mismatch', NULL::bigint;
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM runwire.workflow w
                   WHERE w.name = p_workflow AND w.version >= (v_said ->> 'workflow_version')::integer) THEN
        RETURN QUERY SELECT 'unknown_workflow', NULL::bigint;
        RETURN;
    END IF;
    v_at := runwire.clock_us();
    v_chain := runwire.link(runwire.genesis(p_run, r.tenant_id), 1, 1, 0, v_at,
                            runwire.listing(p_version, 'accepted', 0::smallint, NULL, p_occurred, p_accepted));
    INSERT INTO runwire.run (run_id, tenant_id, subject, workflow, title, created_us)
    VALUES (p_run, r.tenant_id, r.subject, p_workflow, p_title, v_at);
    INSERT INTO runwire.input (run_id, body) VALUES (p_run, p_input);
    INSERT INTO runwire.child (run_id, parent_id, key) VALUES (p_run, p_parent, p_key);
    INSERT INTO runwire.event (run_id, seq, epoch, version, encoding, type, occurred_us, recorded_us, key_id, chain, body)
    VALUES (p_run, 1, 0, p_version, 0, 'accepted', p_occurred, v_at, NULL, v_chain, p_accepted);
    INSERT INTO runwire.head (run_id, tenant_id, status, seq, chain, recorded_us, handed_at)
    VALUES (p_run, r.tenant_id, 'queued', 1, v_chain, v_at, clock_timestamp());
    RETURN QUERY SELECT 'ok', v_at;
END;
$$;

-- The parent's owner asks its child to stop: control's verdicts, and `fenced` when it is not the parent's owner. It holds
-- nothing of the parent meanwhile: a child that ends at this moment locks its own head first and then its parent's.
CREATE FUNCTION runwire.stop_child(
    p_parent uuid, p_epoch integer, p_run uuid, p_version smallint, p_occurred bigint, p_body bytea
) RETURNS TABLE (verdict text, seq integer, status text, owned boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM runwire.child c WHERE c.run_id = p_run AND c.parent_id = p_parent) THEN
        RETURN QUERY SELECT 'unknown', NULL::integer, NULL::text, NULL::boolean;
    ELSIF NOT EXISTS (SELECT FROM runwire.head h WHERE h.run_id = p_parent AND h.epoch = p_epoch) THEN
        RETURN QUERY SELECT 'fenced', NULL::integer, NULL::text, NULL::boolean;
    ELSE
        RETURN QUERY SELECT * FROM runwire.control(p_run, 'cancel_requested', p_version, p_occurred, p_body);
    END IF;
END;
$$;

-- A run has ended: its parent, if it has one that goes on, rests no longer. The parent's head is written in any case, so
-- that an owner who is just laying it to rest waits for this, and then finds `nudged`.
CREATE FUNCTION runwire.wake_parent() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    UPDATE runwire.head h SET nudged = true, due_at = NULL,
        handed_at = CASE WHEN h.lease_until IS NULL THEN '-infinity' ELSE h.handed_at END
    FROM runwire.child c
    WHERE c.run_id = NEW.run_id AND h.run_id = c.parent_id AND h.status NOT IN ('completed', 'failed', 'cancelled');
    RETURN NULL;
END;
$$;
CREATE TRIGGER wakes_parent AFTER UPDATE OF handed_at ON runwire.head FOR EACH ROW
WHEN (NEW.status IN ('completed', 'failed', 'cancelled'))
EXECUTE FUNCTION runwire.wake_parent();

-- As before, and `moved` also when a child has ended since this was asked last.
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
    v_moved := h.cancel OR h.nudged OR h.seq IS DISTINCT FROM p_seq;
    UPDATE runwire.head SET lease_until = NULL, handed_at = '-infinity', parked = h.parked + 1, nudged = false,
        due_at = CASE WHEN NOT v_moved THEN 'epoch'::timestamptz + p_due * interval '1 microsecond' END
    WHERE run_id = p_run;
    RETURN CASE WHEN v_moved THEN 'moved' ELSE 'parked' END;
END;
$$;

DO $$
DECLARE
    thing record;
BEGIN
    ALTER TABLE runwire.child OWNER TO runwire_owner;
    FOR thing IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                 WHERE p.pronamespace = 'runwire'::regnamespace AND p.proowner <> 'runwire_owner'::regrole LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runwire_owner', thing.name);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', thing.name);
    END LOOP;
END;
$$;
GRANT SELECT ON runwire.child TO runwire_worker, runwire_api;
GRANT EXECUTE ON FUNCTION runwire.open_child, runwire.stop_child TO runwire_worker;
