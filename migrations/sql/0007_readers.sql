-- Promises: a run that asks for it is stopped once nobody has read it for as long as it says, by the database's clock; and
-- none is stopped because its readers could not be seen. Nothing is written for any other run.

-- The runs that ask for readers, each until it has ended. A reader is told of at most every `readers_grain()`.
CREATE TABLE runwire.readership (
    run_id        uuid PRIMARY KEY,
    after_s       double precision NOT NULL CHECK (after_s > 0),
    while_waiting boolean NOT NULL,
    seen_at       timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The API processes: whoever reads, reads through one of them. `seen_at` is the moment up to which a process has told of
-- all its readers, `since` the moment from which on it did so without a gap.
CREATE TABLE runwire.reporter (
    process uuid PRIMARY KEY,
    since   timestamptz NOT NULL,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE FUNCTION runwire.readers_grain() RETURNS interval
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT interval '2 seconds' $$;

-- A new run asks for readers; said in the transaction that accepts it, from when its time counts.
CREATE FUNCTION runwire.expect_readers(p_run uuid, p_after_s double precision, p_while_waiting boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO runwire.readership (run_id, after_s, while_waiting, seen_at)
    VALUES (p_run, p_after_s, p_while_waiting, clock_timestamp()) ON CONFLICT DO NOTHING
$$;

-- One API process tells who reads: these runs were read so many seconds ago. `p_known` is a moment of the database's clock
-- before it looked at its readers; none on its first call. Answers which of the runs ask for readers: it need not tell of
-- the others again. A process that leaves in order is not waited for.
CREATE FUNCTION runwire.report_readers(
    p_process uuid, p_runs uuid[], p_agos double precision[], p_known timestamptz, p_gone_s double precision, p_leaves boolean
) RETURNS TABLE (runs uuid[], at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_now  timestamptz := clock_timestamp();
    v_gone interval := make_interval(secs => p_gone_s);
    v_runs uuid[];
BEGIN
    IF NOT EXISTS (SELECT FROM runwire.readership) THEN
        RETURN QUERY SELECT '{}'::uuid[], v_now;
        RETURN;
    END IF;
    -- In run order, as every other process does: two that tell of the same runs must not wait for each other.
    WITH told AS (
        SELECT t.run_id, max(v_now - make_interval(secs => t.ago)) AS seen_at
        FROM unnest(p_runs, p_agos) AS t (run_id, ago) GROUP BY t.run_id
    ), stale AS MATERIALIZED (
        SELECT r.run_id, t.seen_at FROM runwire.readership r JOIN told t ON t.run_id = r.run_id
        WHERE r.seen_at < t.seen_at - runwire.readers_grain()
        ORDER BY r.run_id FOR NO KEY UPDATE OF r
    )
    UPDATE runwire.readership r SET seen_at = greatest(r.seen_at, s.seen_at) FROM stale s WHERE r.run_id = s.run_id;
    SELECT coalesce(array_agg(r.run_id), '{}') INTO v_runs FROM runwire.readership r WHERE r.run_id = ANY (p_runs);
    IF p_leaves THEN
        DELETE FROM runwire.reporter p WHERE p.process = p_process;
    ELSE
        INSERT INTO runwire.reporter AS p (process, since, seen_at) VALUES (p_process, v_now, least(p_known, v_now))
        ON CONFLICT (process) DO UPDATE SET
            since = CASE WHEN p.seen_at < v_now - v_gone THEN v_now ELSE p.since END,
            seen_at = greatest(p.seen_at, excluded.seen_at);
    END IF;
    RETURN QUERY SELECT v_runs, v_now;
END;
$$;

-- When the time of a run without readers is over. Its grain is added, because what is stored may be that much too old.
CREATE FUNCTION runwire.unread_at(p_seen timestamptz, p_after_s double precision, p_since timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT greatest(p_seen, p_since) + make_interval(secs => p_after_s) + runwire.readers_grain() $$;

-- Since when the API processes that are there tell of their readers, and up to when all of them have. Nothing where there
-- is none: nobody could be seen. One that has been silent for p_gone_s is gone, and its readers are elsewhere by now.
CREATE FUNCTION runwire.reported(p_gone_s double precision) RETURNS TABLE (since timestamptz, upto timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT min(p.since), min(p.seen_at) FROM runwire.reporter p
    WHERE p.seen_at > clock_timestamp() - make_interval(secs => p_gone_s)
$$;

-- Runs that seem to have no readers, and ended ones. Only a hint: `abandon` decides. Reads readership whole: it is small.
CREATE FUNCTION runwire.unread(p_gone_s double precision, p_limit integer)
RETURNS TABLE (run_id uuid, after_s double precision)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.run_id, r.after_s
    FROM runwire.reported(p_gone_s) p JOIN runwire.readership r ON runwire.unread_at(r.seen_at, r.after_s, p.since) <= p.upto
    JOIN runwire.head h ON h.run_id = r.run_id
    WHERE r.while_waiting OR h.status <> 'waiting'
    ORDER BY r.run_id LIMIT p_limit
$$;

-- The cancel request that nobody made, once nobody has read the run for as long as it says: control's verdicts, `early`
-- while somebody reads or may, `asked` while it waits for a person. What is found here under the row's lock counts: a
-- report of a reader either came before, or comes to a run that was asked to stop.
CREATE FUNCTION runwire.abandon(p_run uuid, p_gone_s double precision, p_version smallint, p_occurred bigint, p_body bytea)
RETURNS TABLE (verdict text, seq integer, status text, owned boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    r         runwire.readership;
    v_status  text;
    v_decided timestamptz;
BEGIN
    SELECT * INTO r FROM runwire.readership WHERE run_id = p_run FOR UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown', NULL::integer, NULL::text, NULL::boolean;
        RETURN;
    END IF;
    SELECT h.status INTO v_status FROM runwire.head h WHERE h.run_id = p_run;
    IF v_status = 'waiting' AND NOT r.while_waiting THEN
        RETURN QUERY SELECT 'asked', NULL::integer, v_status, NULL::boolean;
        RETURN;
    END IF;
    IF NOT r.while_waiting THEN
        -- The time that a person was given does not count, whether they answered or not.
        SELECT 'epoch'::timestamptz + max(e.recorded_us) * interval '1 microsecond' INTO v_decided
        FROM runwire.event e WHERE e.run_id = p_run AND e.type = 'decision';
        IF v_decided > r.seen_at THEN
            UPDATE runwire.readership SET seen_at = v_decided WHERE run_id = p_run;
            r.seen_at := v_decided;
        END IF;
    END IF;
    IF v_status NOT IN ('completed', 'failed', 'cancelled') AND NOT EXISTS (
        SELECT FROM runwire.reported(p_gone_s) p WHERE runwire.unread_at(r.seen_at, r.after_s, p.since) <= p.upto
    ) THEN
        RETURN QUERY SELECT 'early', NULL::integer, v_status, NULL::boolean;
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM runwire.control(p_run, 'cancel_requested', p_version, p_occurred, p_body);
    DELETE FROM runwire.readership WHERE run_id = p_run;
    DELETE FROM runwire.reporter WHERE seen_at < clock_timestamp() - interval '1 day';
END;
$$;

DO $$
DECLARE
    thing record;
BEGIN
    FOR thing IN SELECT c.oid::regclass AS name FROM pg_class c
                 WHERE c.relnamespace = 'runwire'::regnamespace AND c.relname IN ('readership', 'reporter') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO runwire_owner', thing.name);
    END LOOP;
    FOR thing IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                 WHERE p.pronamespace = 'runwire'::regnamespace AND p.proowner <> 'runwire_owner'::regrole LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runwire_owner', thing.name);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', thing.name);
    END LOOP;
END;
$$;
GRANT EXECUTE ON FUNCTION runwire.expect_readers, runwire.report_readers TO runwire_api;
GRANT EXECUTE ON FUNCTION runwire.unread, runwire.abandon TO runwire_worker;
