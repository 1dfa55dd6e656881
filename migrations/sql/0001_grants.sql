-- Promises: no role of the application can change or remove an event, and none can insert one past the functions.

DO $$
DECLARE
    thing record;
BEGIN
    FOR thing IN SELECT c.oid::regclass AS name FROM pg_class c
                 WHERE c.relnamespace = 'runwire'::regnamespace AND c.relkind IN ('r', 'p') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO runwire_owner', thing.name);
    END LOOP;
    FOR thing IN SELECT p.oid::regprocedure AS name FROM pg_proc p WHERE p.pronamespace = 'runwire'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runwire_owner', thing.name);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', thing.name);
    END LOOP;
END;
$$;

GRANT USAGE ON SCHEMA runwire TO runwire_worker, runwire_api;
GRANT SELECT ON runwire.event, runwire.head, runwire.run, runwire.input, runwire.workflow TO runwire_worker, runwire_api;
GRANT SELECT ON alembic_version TO runwire_worker, runwire_api;
GRANT SELECT ON runwire.tenant, runwire.api_key TO runwire_api;
GRANT INSERT, UPDATE ON runwire.workflow TO runwire_worker;
GRANT EXECUTE ON FUNCTION runwire.append, runwire.claim, runwire.release, runwire.forgotten, runwire.ensure_partitions
    TO runwire_worker;
GRANT EXECUTE ON FUNCTION runwire.open_run, runwire.control, runwire.ensure_partitions TO runwire_api;
