-- Promises: the newest manifest of a workflow; an older worker never overwrites a newer one.
INSERT INTO runwire.workflow (name, version, manifest, runs_max, on_gap, version_wait_s)
VALUES (%(name)s::text, %(version)s::integer, %(manifest)s::jsonb, %(runs_max)s::integer, %(on_gap)s::text,
        %(version_wait_s)s::double precision)
ON CONFLICT (name) DO UPDATE SET version = excluded.version, manifest = excluded.manifest,
    runs_max = excluded.runs_max, on_gap = excluded.on_gap, version_wait_s = excluded.version_wait_s,
    registered_at = clock_timestamp()
WHERE runwire.workflow.version <= excluded.version
