-- Promises: everything that decides who starts next lies in a table of its own, a small row per open run, and follows the
-- heads by itself. What appends write to a head is never indexed and never read to find the next run.

-- A tenant's own bounds, in place of the settings' ones.
ALTER TABLE runwire.tenant
    ADD COLUMN runs_max integer CHECK (runs_max > 0),
    ADD COLUMN caller_runs_max integer CHECK (caller_runs_max > 0),
    ADD COLUMN queued_max integer CHECK (queued_max > 0),
    ADD COLUMN caller_queued_max integer CHECK (caller_queued_max > 0);

-- What a workflow says of its own runs: how many may be carried at once, and what becomes of those that nobody covers.
ALTER TABLE runwire.workflow
    ADD COLUMN runs_max integer CHECK (runs_max > 0),
    ADD COLUMN on_gap text NOT NULL DEFAULT 'error' CHECK (on_gap IN ('error', 'restart')),
    ADD COLUMN version_wait_s double precision NOT NULL DEFAULT 3600 CHECK (version_wait_s > 0);

-- Which versions of which workflows somebody can carry, and when that was last said, by the database's clock.
CREATE TABLE runwire.coverage (
    workflow text NOT NULL,
    version  integer NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workflow, version)
) WITH (fillfactor = 50);

-- One row per run that has not ended. It is in line (`waits`), carried by somebody (`owner`), or it rests until `due_at`.
-- fresh: never begun. since: when it came into line. crashes: how often its owner fell silent with it aboard, as far as it
-- may have been the cause; blamed: the last time nobody else can have been. taken_seq: where its log stood when it was taken;
-- did: how much a suspect stored with its last owner, 0 for others. All of it but the crashes can be rebuilt from the heads;
-- without them a run that kills its workers is tried a few times more.
CREATE TABLE runwire.queue (
    run_id    uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    subject   text NOT NULL,
    workflow  text NOT NULL,
    version   integer NOT NULL,
    since     timestamptz NOT NULL DEFAULT clock_timestamp(),
    fresh     boolean NOT NULL DEFAULT true,
    waits     boolean NOT NULL DEFAULT true,
    suspect   boolean NOT NULL DEFAULT false,
    blamed    boolean NOT NULL DEFAULT false,
    cancel    boolean NOT NULL DEFAULT false,
    crashes   integer NOT NULL DEFAULT 0,
    taken_seq integer NOT NULL DEFAULT 0,
    did       integer NOT NULL DEFAULT 0,
    owner     text,
    due_at    timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- A lane: the runs of one caller, workflow and version, those that were begun before first, then the oldest. Suspects have
-- lanes of their own, in which those that did least before their owner died come first: they most likely did it.
CREATE INDEX queue_lanes ON runwire.queue (tenant_id, subject, workflow, version, suspect, fresh, did, run_id) WHERE waits;
CREATE INDEX queue_carried ON runwire.queue (owner, tenant_id, subject, workflow) WHERE owner IS NOT NULL;
CREATE INDEX queue_kinds ON runwire.queue (workflow, version) WHERE waits;
CREATE INDEX queue_due ON runwire.queue (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX queue_stopped ON runwire.queue (run_id) WHERE waits AND cancel;
CREATE INDEX queue_suspects ON runwire.queue (run_id) WHERE waits AND suspect;
CREATE INDEX queue_fresh ON runwire.queue (run_id) WHERE waits AND fresh;

-- The version that a run was accepted with, as its first event says.
CREATE FUNCTION runwire.accepted_version(p_run uuid) RETURNS integer
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT (convert_from(e.body, 'UTF8')::jsonb ->> 'workflow_version')::integer
                     FROM runwire.event e WHERE e.run_id = p_run AND e.seq = 1), 0)
$$;

-- A head that is made comes into line.
CREATE FUNCTION runwire.line_up() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    INSERT INTO runwire.queue (run_id, tenant_id, subject, workflow, version)
    SELECT r.run_id, r.tenant_id, r.subject, r.workflow, runwire.accepted_version(r.run_id)
    FROM runwire.run r WHERE r.run_id = NEW.run_id
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END;
$$;
CREATE TRIGGER lines_up AFTER INSERT ON runwire.head FOR EACH ROW EXECUTE FUNCTION runwire.line_up();

-- A head that is claimed, given back, laid to rest, woken, asked to stop or ended takes its place in the queue with it. All
-- of these write one of a few columns that no other append writes (see 0005_queue_end.sql).
CREATE FUNCTION runwire.keep_place() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF NEW.status IN ('completed', 'failed', 'cancelled') THEN
        DELETE FROM runwire.queue WHERE run_id = NEW.run_id;
    ELSIF NEW.epoch <> OLD.epoch THEN
        UPDATE runwire.queue SET owner = NEW.owner, waits = false, fresh = false, due_at = NULL, cancel = NEW.cancel,
            taken_seq = NEW.seq
        WHERE run_id = NEW.run_id;
    ELSE
        UPDATE runwire.queue q SET cancel = NEW.cancel, due_at = NEW.due_at,
            owner = CASE WHEN NEW.lease_until IS NOT NULL THEN q.owner END,
            waits = NEW.due_at IS NULL AND (q.waits OR NEW.lease_until IS NULL),
            since = CASE WHEN q.waits THEN q.since ELSE clock_timestamp() END
        WHERE q.run_id = NEW.run_id;
    END IF;
    RETURN NULL;
END;
$$;
CREATE TRIGGER keeps_its_place AFTER UPDATE OF epoch, due_at, cancel, handed_at ON runwire.head FOR EACH ROW
EXECUTE FUNCTION runwire.keep_place();

-- The runs that are open now.
INSERT INTO runwire.queue (run_id, tenant_id, subject, workflow, version, fresh, waits, cancel, owner, due_at)
SELECT h.run_id, r.tenant_id, r.subject, r.workflow, runwire.accepted_version(h.run_id), h.epoch = 0,
    h.lease_until IS NULL AND h.due_at IS NULL, h.cancel, CASE WHEN h.lease_until IS NOT NULL THEN coalesce(h.owner, '') END,
    CASE WHEN h.lease_until IS NULL THEN h.due_at END
FROM runwire.head h JOIN runwire.run r USING (run_id)
WHERE NOT h.resting AND h.status NOT IN ('completed', 'failed', 'cancelled');
