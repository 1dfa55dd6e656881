-- Promises: who may do what is decided here and in 0001_grants.sql, not in the application's code.
-- Roles belong to the whole server, so another database of this server may have made them already.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['runwire_owner', 'runwire_worker', 'runwire_api'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- two migrations of two databases at the same moment: the other one made it
        END;
        -- The connecting user takes the role of its process at connect; it must be a member to do so. From PostgreSQL 16
        -- on, who makes a role is a member that may not take it.
        IF NOT pg_has_role(current_user, wanted,
                           CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
        THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', wanted);
        END IF;
    END LOOP;
END;
$$;

CREATE SCHEMA runwire AUTHORIZATION runwire_owner;
