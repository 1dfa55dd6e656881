-- Promises: blocks that are not those that were signed can be set aside, by an operator only, and are kept as they were found.

CREATE TABLE runwire.block_set_aside (
    set_aside_at timestamptz NOT NULL,
    block_no     bigint NOT NULL,
    header       bytea NOT NULL,
    entries      bytea NOT NULL,
    statement    bytea,
    firsts       bytea NOT NULL,
    nodes        bytea NOT NULL,
    PRIMARY KEY (set_aside_at, block_no)
);
ALTER TABLE runwire.block_set_aside ALTER COLUMN entries SET STORAGE EXTERNAL;
SELECT runwire.make_append_only('runwire.block_set_aside');

-- From this number on; `sealed` is made anew from the blocks that stay. Answers what was set aside: how many blocks, and
-- the digest of their headers one after another.
CREATE FUNCTION runwire.set_blocks_aside(p_from bigint, OUT blocks bigint, OUT headers bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b record;
BEGIN
    INSERT INTO runwire.block_set_aside (set_aside_at, block_no, header, entries, statement, firsts, nodes)
    SELECT transaction_timestamp(), k.block_no, k.header, k.entries, k.statement, k.firsts, k.nodes
    FROM runwire.block k WHERE k.block_no >= p_from;
    SELECT count(*), sha256(coalesce(string_agg(k.header, ''::bytea ORDER BY k.block_no), ''::bytea)) INTO blocks, headers
    FROM runwire.block k WHERE k.block_no >= p_from;
    ALTER TABLE runwire.block DISABLE TRIGGER refuse_change;
    DELETE FROM runwire.block k WHERE k.block_no >= p_from;
    ALTER TABLE runwire.block ENABLE ALWAYS TRIGGER refuse_change;
    UPDATE runwire.followed f SET block_no = p_from - 1, place = 0 WHERE f.block_no >= p_from - 1;
    DELETE FROM runwire.sealed;
    FOR b IN SELECT k.block_no, k.entries FROM runwire.block k ORDER BY k.block_no LOOP
        PERFORM runwire.pin(b.block_no, b.entries, true);
    END LOOP;
END;
$$;

-- A block as it was set aside in this transaction.
CREATE FUNCTION runwire.block_aside(p_no bigint)
RETURNS TABLE (block_no bigint, header bytea, entries bytea, statement bytea, firsts bytea)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.block_no, a.header, a.entries, a.statement, a.firsts FROM runwire.block_set_aside a
    WHERE a.set_aside_at = transaction_timestamp() AND a.block_no = p_no
$$;

DO $$
DECLARE
    thing record;
BEGIN
    ALTER TABLE runwire.block_set_aside OWNER TO runwire_owner;
    FOR thing IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                 WHERE p.pronamespace = 'runwire'::regnamespace AND p.proowner <> 'runwire_owner'::regrole LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO runwire_owner', thing.name);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', thing.name);
    END LOOP;
END;
$$;
GRANT SELECT ON runwire.block_set_aside TO runwire_sealer, runwire_api;
GRANT EXECUTE ON FUNCTION runwire.rest_heads, runwire.wake_heads TO runwire_sealer;
