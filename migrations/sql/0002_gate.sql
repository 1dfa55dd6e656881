-- Promises: while the gate is shut no event is stored, whoever asks; while it is open this costs nothing. The trigger is
-- there always and switched off, so that no append looks anything up. Shutting waits for the appends that are under way.

CREATE FUNCTION runwire.refuse_while_shut() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Of the class that writers take for a server that is away: they keep what they have and ask again.
    RAISE EXCEPTION 'the log takes no events until an operator acknowledges what it lost'
        USING ERRCODE = 'operator_intervention';
END;
$$;

CREATE TRIGGER log_is_shut BEFORE INSERT ON runwire.event FOR EACH STATEMENT EXECUTE FUNCTION runwire.refuse_while_shut();
ALTER TABLE runwire.event DISABLE TRIGGER log_is_shut;

CREATE FUNCTION runwire.shut_gate(p_why text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE runwire.gate SET shut = true, why = p_why, since = clock_timestamp() WHERE NOT shut;
    IF FOUND THEN
        ALTER TABLE runwire.event ENABLE ALWAYS TRIGGER log_is_shut;
        RETURN true;
    END IF;
    RETURN false;
END;
$$;

CREATE FUNCTION runwire.open_gate() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE runwire.gate SET shut = false, why = NULL, since = clock_timestamp() WHERE shut;
    IF FOUND THEN
        ALTER TABLE runwire.event DISABLE TRIGGER log_is_shut;
        RETURN true;
    END IF;
    RETURN false;
END;
$$;
