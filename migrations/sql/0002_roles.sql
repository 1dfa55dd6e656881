-- Promises: the sealer has a role of its own. See 0001_roles.sql for why it is made with such care.
DO $$
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'runwire_sealer') THEN
            CREATE ROLE runwire_sealer NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database's migration made it at the same moment
    END;
    IF NOT pg_has_role(current_user, 'runwire_sealer',
                       CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
    THEN
        GRANT runwire_sealer TO CURRENT_USER;
    END IF;
END;
$$;
