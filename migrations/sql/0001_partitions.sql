-- Promises: a partition for every week from the one before now to four weeks ahead, each as append-only as the log.

-- The smallest UUIDv7 of a moment: 48 bits of milliseconds, then zeros.
CREATE FUNCTION runwire.uuid_floor(p_at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (lpad(to_hex((extract(epoch FROM p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

CREATE FUNCTION runwire.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'the log is append-only: % on %.% is refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END;
$$;

-- Row triggers reach the partitions by themselves, TRUNCATE triggers do not: each partition gets its own. ENABLE ALWAYS
-- holds also under session_replication_role = replica.
CREATE FUNCTION runwire.make_append_only(p_table regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = p_table AND tgname = 'refuse_change') THEN
        EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON %s
                        FOR EACH ROW EXECUTE FUNCTION runwire.refuse_change()', p_table);
    END IF;
    EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION runwire.refuse_change()', p_table);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_change', p_table);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER refuse_truncate', p_table);
END;
$$;

CREATE FUNCTION runwire.ensure_partitions(p_weeks_ahead integer DEFAULT 4) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    v_week timestamptz := date_trunc('week', clock_timestamp()) - interval '1 week';
    v_last timestamptz := date_trunc('week', clock_timestamp()) + make_interval(weeks => p_weeks_ahead);
    v_name text;
    v_made integer := 0;
BEGIN
    WHILE v_week <= v_last LOOP
        v_name := 'event_' || to_char(v_week, 'YYYYMMDD');
        IF to_regclass('runwire.' || v_name) IS NULL THEN
            BEGIN
                -- Made aside and attached: ATTACH waits for no reader, and no append waits for it. CREATE ... PARTITION OF
                -- would stop both behind one long read.
                EXECUTE format('CREATE TABLE runwire.%I (LIKE runwire.event INCLUDING ALL)', v_name);
                EXECUTE format('ALTER TABLE runwire.event ATTACH PARTITION runwire.%I FOR VALUES FROM (%L) TO (%L)',
                               v_name, runwire.uuid_floor(v_week), runwire.uuid_floor(v_week + interval '1 week'));
                PERFORM runwire.make_append_only(('runwire.' || v_name)::regclass);
                v_made := v_made + 1;
            EXCEPTION WHEN duplicate_table OR unique_violation THEN
                NULL; -- another process made it at the same moment
            END;
        END IF;
        v_week := v_week + interval '1 week';
    END LOOP;
    RETURN v_made;
END;
$$;

SELECT runwire.make_append_only('runwire.event');
SELECT runwire.make_append_only('runwire.input');
SELECT runwire.ensure_partitions();
