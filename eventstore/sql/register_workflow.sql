-- Promises: the newest manifest of a workflow; an older worker never overwrites a newer one.
INSERT INTO runwire.workflow (name, version, manifest)
VALUES (%(name)s::text, %(version)s::integer, %(manifest)s::jsonb)
ON CONFLICT (name) DO UPDATE SET version = excluded.version, manifest = excluded.manifest,
    registered_at = clock_timestamp()
WHERE runwire.workflow.version <= excluded.version
