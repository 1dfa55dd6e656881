-- Promises: one order for who starts next, for the workers that take and for whoever asks for a place in line: the tenant
-- with the fewest runs under way first, in it the caller with the fewest, of a caller's runs those that were begun before,
-- then the oldest. Nobody is passed over for ever: each start moves its tenant and its caller back by one.

-- The next runs in that order, of the versions that are named: some p_rows in all, the same number of each lane. `cut`: the
-- last that was looked at of a lane that may go on; places behind the first such row are lower bounds. The cost is that of
-- the lanes and of p_rows, however long a lane is.
CREATE FUNCTION runwire.line(p_names text[], p_versions integer[], p_rows integer)
RETURNS TABLE (place bigint, run_id uuid, tenant_id uuid, subject text, workflow text, suspect boolean, cut boolean)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE lane AS (
        (SELECT q.tenant_id, q.subject, q.workflow, q.version, q.suspect FROM runwire.queue q WHERE q.waits
         ORDER BY q.tenant_id, q.subject, q.workflow, q.version, q.suspect LIMIT 1)
        UNION ALL
        SELECT n.tenant_id, n.subject, n.workflow, n.version, n.suspect
        FROM lane l CROSS JOIN LATERAL (
            SELECT q.tenant_id, q.subject, q.workflow, q.version, q.suspect FROM runwire.queue q
            WHERE q.waits AND (q.tenant_id, q.subject, q.workflow, q.version, q.suspect)
                            > (l.tenant_id, l.subject, l.workflow, l.version, l.suspect)
            ORDER BY q.tenant_id, q.subject, q.workflow, q.version, q.suspect LIMIT 1
        ) n
    ), covered AS MATERIALIZED (
        SELECT l.* FROM lane l JOIN (SELECT DISTINCT c.name, c.version FROM unnest(p_names, p_versions) c (name, version)) c
            ON c.name = l.workflow AND c.version = l.version
    ), depth AS MATERIALIZED (
        SELECT greatest(1, p_rows / greatest(1, count(*)))::integer AS n FROM covered
    ), ahead AS MATERIALIZED (
        SELECT c.tenant_id, c.subject, c.workflow, c.suspect, n.fresh, n.did, n.run_id, n.nth = d.n AS cut
        FROM depth d CROSS JOIN covered c CROSS JOIN LATERAL (
            SELECT q.fresh, q.did, q.run_id, row_number() OVER (ORDER BY q.fresh, q.did, q.run_id) AS nth FROM runwire.queue q
            WHERE q.waits AND q.tenant_id = c.tenant_id AND q.subject = c.subject AND q.workflow = c.workflow
              AND q.version = c.version AND q.suspect = c.suspect
            ORDER BY q.fresh, q.did, q.run_id LIMIT d.n
        ) n
    ), carried AS MATERIALIZED (
        SELECT q.tenant_id, q.subject, count(*) AS n FROM runwire.queue q WHERE q.owner IS NOT NULL GROUP BY 1, 2
    ), carried_of_tenant AS MATERIALIZED (
        SELECT c.tenant_id, sum(c.n) AS n FROM carried c GROUP BY 1
    ), of_caller AS (
        SELECT a.*, coalesce(c.n, 0)
            + row_number() OVER (PARTITION BY a.tenant_id, a.subject ORDER BY a.fresh, a.did, a.run_id) AS nth
        FROM ahead a LEFT JOIN carried c ON c.tenant_id = a.tenant_id AND c.subject = a.subject
    ), of_tenant AS (
        SELECT o.*, coalesce(t.n, 0)
            + row_number() OVER (PARTITION BY o.tenant_id ORDER BY o.nth, o.fresh, o.did, o.run_id) AS turn
        FROM of_caller o LEFT JOIN carried_of_tenant t ON t.tenant_id = o.tenant_id
    )
    SELECT row_number() OVER (ORDER BY o.turn, o.fresh, o.did, o.run_id), o.run_id, o.tenant_id, o.subject, o.workflow,
        o.suspect, o.cut
    FROM of_tenant o ORDER BY 1
$$;

-- Places of runs that are in line, as somebody who waits is told: `place` counted from 1, `exact` when nothing that was not
-- looked at can be before it, and why it waits: turn, tenant, caller or workflow (so many of these are under way as may be),
-- or no_worker (none that is alive covers its version). Runs that are not in line are left out.
CREATE FUNCTION runwire.places(
    p_runs uuid[], p_rows integer, p_live_s double precision, p_tenant_max integer, p_caller_max integer
) RETURNS TABLE (run_id uuid, place bigint, exact boolean, why text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_names    text[];
    v_versions integer[];
BEGIN
    IF NOT EXISTS (SELECT FROM runwire.queue q WHERE q.run_id = ANY (p_runs) AND q.waits) THEN
        RETURN;
    END IF;
    SELECT array_agg(c.workflow), array_agg(c.version) INTO v_names, v_versions FROM runwire.coverage c
    WHERE c.seen_at > clock_timestamp() - make_interval(secs => p_live_s);
    RETURN QUERY
    WITH line AS MATERIALIZED (
        SELECT l.run_id, l.place, l.cut FROM runwire.line(v_names, v_versions, p_rows) l
    ), seen AS MATERIALIZED (
        SELECT count(*) AS n, min(l.place) FILTER (WHERE l.cut) AS surely FROM line l
    ), carried AS MATERIALIZED (
        SELECT q.tenant_id, q.subject, q.workflow FROM runwire.queue q WHERE q.owner IS NOT NULL
    )
    SELECT q.run_id,
        CASE WHEN c.covers THEN coalesce(l.place, s.n + 1) END,
        c.covers AND coalesce(l.place <= coalesce(s.surely, l.place), false),
        CASE WHEN NOT c.covers THEN 'no_worker'
             WHEN (SELECT count(*) FROM carried k WHERE k.tenant_id = q.tenant_id)
                  >= coalesce(t.runs_max, p_tenant_max) THEN 'tenant'
             WHEN (SELECT count(*) FROM carried k WHERE k.tenant_id = q.tenant_id AND k.subject = q.subject)
                  >= coalesce(t.caller_runs_max, p_caller_max) THEN 'caller'
             WHEN (SELECT count(*) FROM carried k WHERE k.workflow = q.workflow) >= w.runs_max THEN 'workflow'
             ELSE 'turn' END
    FROM runwire.queue q
    CROSS JOIN seen s
    CROSS JOIN LATERAL (
        SELECT EXISTS (SELECT FROM unnest(v_names, v_versions) v (name, version)
                       WHERE v.name = q.workflow AND v.version = q.version) AS covers
    ) c
    LEFT JOIN line l ON l.run_id = q.run_id
    LEFT JOIN runwire.tenant t ON t.tenant_id = q.tenant_id
    LEFT JOIN runwire.workflow w ON w.name = q.workflow
    WHERE q.run_id = ANY (p_runs) AND q.waits;
END;
$$;
