-- Promises: no more runs of a tenant, a caller or a workflow are under way at once than may be, over all workers; who starts
-- next is decided by runwire.line; a run that kills its worker is found out, and its neighbours are not taken for it.
--
-- Taking and tending hold one lock for the length of a short transaction, so that counting and claiming are one. They wait
-- for no head: one that somebody else holds is passed over. Appends never ask for this lock.
CREATE FUNCTION runwire.lock_queue() RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pg_advisory_xact_lock(1381322327, 5) $$;

-- One head, if it is free: claimed as runwire.claim does it. A place in the queue that is behind its head is put right.
CREATE FUNCTION runwire.claim_waiting(p_run uuid, p_owner text, p_lease_s double precision) RETURNS runwire.head
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    h runwire.head;
BEGIN
    SELECT * INTO h FROM runwire.head WHERE run_id = p_run FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF h.status IN ('completed', 'failed', 'cancelled') THEN
        DELETE FROM runwire.queue WHERE run_id = p_run;
        RETURN NULL;
    ELSIF h.lease_until > clock_timestamp() THEN -- its owner was silent for a while, and is not any more
        UPDATE runwire.queue SET owner = coalesce(h.owner, ''), waits = false WHERE run_id = p_run;
        RETURN NULL;
    ELSIF h.due_at > clock_timestamp() THEN
        UPDATE runwire.queue SET due_at = h.due_at, waits = false WHERE run_id = p_run;
        RETURN NULL;
    END IF;
    UPDATE runwire.head SET epoch = h.epoch + 1, owner = p_owner, batch_no = 0, batch_first = NULL, batch_last = NULL,
        lease_until = clock_timestamp() + make_interval(secs => p_lease_s), due_at = NULL
    WHERE run_id = p_run;
    h.epoch := h.epoch + 1;
    RETURN h;
END;
$$;

-- Up to p_room runs for one worker that covers these versions, in the order of runwire.line, as far as the bounds of their
-- tenants, callers and workflows allow. Of suspects (see runwire.tend) a worker takes few at a time: p_suspects are aboard,
-- p_on_trial of them not for long yet. One that three owners died with is taken by a worker that has no other suspect.
-- Before them and beyond any bound, at most p_endings runs that only need to be ended: `why` says it: stopped (somebody asked
-- for that), queue_wait (in line for longer than p_wait_s and never begun), or version_gone (for longer than the workflow
-- allows nobody alive has covered its version). The last two are looked for when p_wait_s is given, by a worker that has
-- been there for p_up_s. A last row without a run says that more could start now, on a worker with room or of another version.
CREATE FUNCTION runwire.take(
    p_owner text, p_lease_s double precision, p_room integer, p_on_trial integer, p_suspects integer,
    p_names text[], p_versions integer[], p_tenant_max integer, p_caller_max integer, p_endings integer, p_wait_s double precision, p_up_s double precision
) RETURNS TABLE (
    run_id uuid, tenant_id uuid, epoch integer, seq integer, status text, cancel boolean, parked integer, crashes integer,
    blamed boolean, why text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    c         record;
    h         runwire.head;
    v_busy    jsonb;
    v_tenant  text;
    v_caller  text;
    v_work    text;
    v_left    integer := p_endings;
    v_taken   integer := 0;
    v_more    boolean := false;
    v_trials  integer;
    v_aboard  integer := p_suspects;
BEGIN
    PERFORM runwire.lock_queue();
    FOR c IN
        SELECT q.run_id, q.crashes, q.blamed, 'stopped' AS why FROM runwire.queue q WHERE q.waits AND q.cancel LIMIT p_endings
    LOOP
        h := runwire.claim_waiting(c.run_id, p_owner, p_lease_s);
        IF h.run_id IS NOT NULL THEN
            v_left := v_left - 1;
            RETURN QUERY SELECT h.run_id, h.tenant_id, h.epoch, h.seq, h.status, h.cancel, h.parked, c.crashes, c.blamed, c.why;
        END IF;
    END LOOP;
    IF p_wait_s IS NOT NULL AND v_left > 0 THEN
        FOR c IN SELECT * FROM runwire.given_up(p_names, p_wait_s, p_up_s, v_left) LOOP
            h := runwire.claim_waiting(c.run_id, p_owner, p_lease_s);
            IF h.run_id IS NOT NULL THEN
                RETURN QUERY
                SELECT h.run_id, h.tenant_id, h.epoch, h.seq, h.status, h.cancel, h.parked, c.crashes, c.blamed, c.why;
            END IF;
        END LOOP;
    END IF;
    IF NOT EXISTS (SELECT FROM runwire.queue q WHERE q.waits) THEN
        RETURN;
    END IF;
    SELECT coalesce(jsonb_object_agg(b.scope, b.n), '{}') INTO v_busy FROM (
        SELECT 't ' || q.tenant_id AS scope, count(*) AS n FROM runwire.queue q WHERE q.owner IS NOT NULL GROUP BY 1
        UNION ALL
        SELECT 'c ' || q.tenant_id || q.subject, count(*) FROM runwire.queue q WHERE q.owner IS NOT NULL GROUP BY 1
        UNION ALL
        SELECT 'w ' || q.workflow, count(*) FROM runwire.queue q WHERE q.owner IS NOT NULL GROUP BY 1
    ) b;
    SELECT greatest(1, floor(sqrt(count(*) / 4.0)))::integer - p_on_trial INTO v_trials
    FROM (SELECT FROM runwire.queue q WHERE q.waits AND q.suspect LIMIT 10000) s;
    FOR c IN
        SELECT l.*, q.crashes, q.blamed, coalesce(t.runs_max, p_tenant_max) AS tenant_max,
            coalesce(t.caller_runs_max, p_caller_max) AS caller_max, w.runs_max AS work_max
        FROM runwire.line(p_names, p_versions, 2000) l JOIN runwire.queue q ON q.run_id = l.run_id
        LEFT JOIN runwire.tenant t ON t.tenant_id = l.tenant_id LEFT JOIN runwire.workflow w ON w.name = l.workflow
        ORDER BY l.place
    LOOP
        v_tenant := 't ' || c.tenant_id;
        v_caller := 'c ' || c.tenant_id || c.subject;
        v_work := 'w ' || c.workflow;
        CONTINUE WHEN (v_busy ->> v_tenant)::integer >= c.tenant_max OR (v_busy ->> v_caller)::integer >= c.caller_max
            OR (v_busy ->> v_work)::integer >= c.work_max;
        IF v_taken >= p_room THEN
            v_more := true;
            EXIT;
        END IF;
        IF c.suspect THEN
            CONTINUE WHEN v_trials <= 0 OR (c.crashes > 2 AND v_aboard > 0);
            v_trials := CASE WHEN c.crashes > 2 THEN 0 ELSE v_trials - 1 END;
            v_aboard := v_aboard + 1;
        END IF;
        h := runwire.claim_waiting(c.run_id, p_owner, p_lease_s);
        CONTINUE WHEN h.run_id IS NULL;
        v_taken := v_taken + 1;
        v_busy := v_busy || jsonb_build_object(v_tenant, coalesce((v_busy ->> v_tenant)::integer, 0) + 1,
            v_caller, coalesce((v_busy ->> v_caller)::integer, 0) + 1, v_work, coalesce((v_busy ->> v_work)::integer, 0) + 1);
        RETURN QUERY SELECT h.run_id, h.tenant_id, h.epoch, h.seq, h.status, h.cancel, h.parked, c.crashes, c.blamed, ''::text;
    END LOOP;
    IF v_more OR EXISTS (
        SELECT FROM runwire.coverage v
        WHERE v.seen_at > clock_timestamp() - interval '15 seconds'
          AND NOT EXISTS (SELECT FROM unnest(p_names, p_versions) m (name, version)
                          WHERE m.name = v.workflow AND m.version = v.version)
          AND EXISTS (SELECT FROM runwire.queue q WHERE q.waits AND q.workflow = v.workflow AND q.version = v.version)
    ) THEN
        RETURN QUERY SELECT NULL::uuid, NULL::uuid, NULL::integer, NULL::integer, NULL::text, NULL::boolean, NULL::integer,
            NULL::integer, NULL::boolean, 'more'::text;
    END IF;
END;
$$;

-- Runs in line that will not start any more: see runwire.take. A worker ends those of its own workflows, and those of which
-- no worker that is alive knows the workflow in any version.
CREATE FUNCTION runwire.given_up(p_names text[], p_wait_s double precision, p_up_s double precision, p_limit integer)
RETURNS TABLE (run_id uuid, crashes integer, blamed boolean, why text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    (SELECT q.run_id, q.crashes, q.blamed, 'queue_wait' FROM runwire.queue q
     WHERE q.waits AND q.fresh AND q.run_id < runwire.uuid_floor(clock_timestamp() - make_interval(secs => p_wait_s))
       AND q.since < clock_timestamp() - make_interval(secs => p_wait_s)
     ORDER BY q.run_id LIMIT p_limit)
    UNION ALL
    (SELECT g.run_id, g.crashes, g.blamed, 'version_gone' FROM (
         WITH RECURSIVE kind AS (
             (SELECT q.workflow, q.version FROM runwire.queue q WHERE q.waits ORDER BY 1, 2 LIMIT 1)
             UNION ALL
             SELECT n.workflow, n.version FROM kind k CROSS JOIN LATERAL (
                 SELECT q.workflow, q.version FROM runwire.queue q
                 WHERE q.waits AND (q.workflow, q.version) > (k.workflow, k.version) ORDER BY 1, 2 LIMIT 1) n
         )
         SELECT q.run_id, q.crashes, q.blamed
         FROM kind k
         LEFT JOIN runwire.coverage v ON v.workflow = k.workflow AND v.version = k.version
         LEFT JOIN runwire.workflow w ON w.name = k.workflow
         CROSS JOIN LATERAL (
             SELECT clock_timestamp() - make_interval(secs => coalesce(w.version_wait_s, 3600)) AS since,
                 coalesce(w.version_wait_s, 3600) AS wait_s
         ) gone
         JOIN runwire.queue q ON q.waits AND q.workflow = k.workflow AND q.version = k.version AND q.since < gone.since
         WHERE coalesce(v.seen_at < least(gone.since, clock_timestamp() - interval '15 seconds'), true) AND p_up_s >= least(gone.wait_s, 60)
           AND (k.workflow = ANY (p_names) OR NOT EXISTS (
               SELECT FROM runwire.coverage o
               WHERE o.workflow = k.workflow AND o.seen_at > clock_timestamp() - interval '15 seconds'))
         LIMIT p_limit) g)
$$;

-- What a worker does for all of them every second or so: it says what it covers, brings back into line what is due, and what
-- was carried by an owner that fell silent. Answers how many came back for each of these reasons.
--
-- An owner is dead when all that it carries has lapsed. Who of its runs killed it? If it carried one alone, that one. If
-- exactly one of them was a suspect already, that one, and the others are not marked at all. Else each of them may have been
-- it, of several suspects each of these. Twice marked is a suspect: workers then take only a few of them at a time, most often
-- one, so that the next death tells.
-- A run that lapsed while its owner goes on with others was let go by its own fault.
CREATE FUNCTION runwire.tend(p_names text[], p_versions integer[], p_lease_s double precision)
RETURNS TABLE (due integer, lost integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_due  integer := 0;
    v_lost integer := 0;
BEGIN
    INSERT INTO runwire.coverage AS v (workflow, version)
    SELECT m.name, m.version FROM unnest(p_names, p_versions) m (name, version) ORDER BY 1, 2
    ON CONFLICT (workflow, version) DO UPDATE SET seen_at = clock_timestamp()
    WHERE v.seen_at < clock_timestamp() - interval '1 second';
    IF NOT pg_try_advisory_xact_lock(1381322327, 5) THEN
        RETURN QUERY SELECT 0, 0; -- another worker is at it
        RETURN;
    END IF;
    UPDATE runwire.queue q SET due_at = NULL, waits = true, since = clock_timestamp() WHERE q.due_at <= clock_timestamp();
    GET DIAGNOSTICS v_due = ROW_COUNT;
    WITH carried AS (
        SELECT q.run_id, q.suspect, h.seq - q.taken_seq AS did, coalesce(h.lease_until, '-infinity') AS until,
            max(coalesce(h.lease_until, '-infinity')) OVER aboard < clock_timestamp() AS dead,
            count(*) OVER aboard AS runs, count(*) FILTER (WHERE q.suspect) OVER aboard AS suspects
        FROM runwire.queue q JOIN runwire.head h USING (run_id)
        WHERE q.owner IS NOT NULL
        WINDOW aboard AS (PARTITION BY q.owner)
    ), lapsed AS (
        SELECT c.run_id, c.did,
            CASE WHEN c.dead AND c.suspects > 0 AND NOT c.suspect THEN 0 ELSE 1 END AS mark,
            CASE WHEN NOT c.dead THEN true WHEN c.suspects = 1 THEN c.suspect ELSE c.runs = 1 END AS blamed
        FROM carried c
        WHERE c.dead OR c.until < clock_timestamp() - make_interval(secs => p_lease_s / 2)
    )
    UPDATE runwire.queue q SET owner = NULL, waits = true, since = clock_timestamp(), blamed = l.blamed,
        crashes = q.crashes + l.mark, suspect = q.crashes + l.mark > 1,
        did = CASE WHEN q.crashes + l.mark > 1 THEN l.did ELSE 0 END
    FROM lapsed l WHERE q.run_id = l.run_id;
    GET DIAGNOSTICS v_lost = ROW_COUNT;
    RETURN QUERY SELECT v_due, v_lost;
END;
$$;

-- A run that begins anew under another version of its workflow, by its owner.
CREATE FUNCTION runwire.move_on(p_run uuid, p_epoch integer, p_version integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE runwire.queue q SET version = p_version FROM runwire.head h
    WHERE q.run_id = p_run AND h.run_id = p_run AND h.epoch = p_epoch;
    RETURN FOUND;
END;
$$;

DO $$
DECLARE
    thing record;
BEGIN
    FOR thing IN SELECT c.oid::regclass AS name FROM pg_class c
                 WHERE c.relnamespace = 'runwire'::regnamespace AND c.relkind IN ('r', 'p')
                   AND c.relowner <> 'runwire_owner'::regrole LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO runwire_owner', thing.name);
    END LOOP;
    FOR thing IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                 WHERE p.pronamespace = 'runwire'::regnamespace AND p.proowner <> 'runwire_owner'::regrole LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runwire_owner', thing.name);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', thing.name);
    END LOOP;
END;
$$;
GRANT SELECT ON runwire.queue, runwire.coverage TO runwire_worker, runwire_api;
GRANT EXECUTE ON FUNCTION runwire.take, runwire.tend, runwire.move_on TO runwire_worker;
GRANT EXECUTE ON FUNCTION runwire.places TO runwire_api;
