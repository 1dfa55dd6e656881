-- Promises: the sealer reads heads and adds blocks through functions; it can change nothing and cannot open the gate.

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

GRANT USAGE ON SCHEMA runwire TO runwire_sealer;
GRANT SELECT ON alembic_version TO runwire_sealer, runwire_owner;
GRANT SELECT ON runwire.event, runwire.head, runwire.run, runwire.sealed, runwire.sealer TO runwire_sealer;
GRANT SELECT ON runwire.identity, runwire.block, runwire.checkpoint, runwire.gate
    TO runwire_sealer, runwire_worker, runwire_api;
GRANT SELECT ON runwire.sealed, runwire.followed, runwire.mismatch TO runwire_api;
-- The walk over what was sealed keeps its own mark. A mark that is wrong costs a walk, not the log.
GRANT SELECT, UPDATE ON runwire.followed TO runwire_sealer;
GRANT SELECT, INSERT ON runwire.mismatch TO runwire_sealer;
GRANT EXECUTE ON FUNCTION runwire.lead, runwire.add_block, runwire.keep_checkpoint, runwire.rebuild_sealed,
    runwire.shut_gate TO runwire_sealer;
