-- Promises: blocks are numbered 1, 2, 3 … in the order in which they are committed, and only by the sealer that leads.
-- Every function that writes locks the one row of `sealer` to commit: that lock orders sealers, and no writer of events
-- ever takes it.

-- Become the leader if there is none by the database's clock. The new epoch, or NULL while another leads.
CREATE FUNCTION runwire.lead(p_owner text, p_lease_s double precision) RETURNS integer
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE runwire.sealer SET epoch = epoch + 1, owner = p_owner,
        lease_until = clock_timestamp() + make_interval(secs => p_lease_s)
    WHERE lease_until IS NULL OR lease_until <= clock_timestamp()
    RETURNING epoch
$$;

-- For an operator only: become the leader whoever leads now.
CREATE FUNCTION runwire.lead_over(p_owner text, p_lease_s double precision) RETURNS integer
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE runwire.sealer SET epoch = epoch + 1, owner = p_owner,
        lease_until = clock_timestamp() + make_interval(secs => p_lease_s)
    RETURNING epoch
$$;

-- Remember these entries as the last sealed state of their runs; answers how many were. Forward only, unless told.
CREATE FUNCTION runwire.pin(p_no bigint, p_entries bytea, p_any_way boolean) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_pinned integer;
BEGIN
    INSERT INTO runwire.sealed AS s (run_id, seq, chain, closed, block_no)
    SELECT encode(substr(e.part, 1, 16), 'hex')::uuid,
           (get_byte(e.part, 32) << 24) | (get_byte(e.part, 33) << 16) | (get_byte(e.part, 34) << 8) | get_byte(e.part, 35),
           substr(e.part, 37, 32), get_byte(e.part, 68) = 1, p_no
    FROM (SELECT substr(p_entries, n * 69 + 1, 69) AS part
          FROM generate_series(0, octet_length(p_entries) / 69 - 1) n OFFSET 0) e
    ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq, chain = excluded.chain, closed = excluded.closed,
        block_no = excluded.block_no
    WHERE p_any_way OR s.seq < excluded.seq;
    GET DIAGNOSTICS v_pinned = ROW_COUNT;
    RETURN v_pinned;
END;
$$;

-- A block as it stands, under the number that follows the last one: `ok` or `out_of_order`.
CREATE FUNCTION runwire.put_block(
    p_no bigint, p_header bytea, p_entries bytea, p_statement bytea, p_firsts bytea, p_nodes bytea, p_any_way boolean
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_no IS DISTINCT FROM (SELECT coalesce(max(block_no), 0) + 1 FROM runwire.block) THEN
        RETURN 'out_of_order';
    END IF;
    INSERT INTO runwire.block (block_no, header, entries, statement, firsts, nodes)
    VALUES (p_no, p_header, p_entries, p_statement, p_firsts, p_nodes);
    IF runwire.pin(p_no, p_entries, p_any_way) <> octet_length(p_entries) / 69 THEN
        RAISE EXCEPTION 'block %: a run would go back behind its seal', p_no USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN 'ok';
END;
$$;

-- The leader's block. `ok`; `fenced`: another sealer leads since; `shut`: the gate is; `out_of_order`: this log does not end
-- where the leader believes. The fence is asked under the row's lock, in the statement that stores.
CREATE FUNCTION runwire.add_block(
    p_epoch integer, p_lease_s double precision,
    p_no bigint, p_header bytea, p_entries bytea, p_firsts bytea, p_nodes bytea
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE runwire.sealer SET lease_until = clock_timestamp() + make_interval(secs => p_lease_s) WHERE epoch = p_epoch;
    IF NOT FOUND THEN
        RETURN 'fenced';
    END IF;
    IF (SELECT shut FROM runwire.gate) THEN
        RETURN 'shut';
    END IF;
    IF get_byte(p_header, 0) <> 3 THEN
        RAISE EXCEPTION 'add_block: not the header of a block' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN runwire.put_block(p_no, p_header, p_entries, NULL, p_firsts, p_nodes, false);
END;
$$;

-- A checkpoint that is published outside. `ok`, `fenced`, or `unknown` when this log never had that size.
CREATE FUNCTION runwire.keep_checkpoint(p_epoch integer, p_size bigint, p_note text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM runwire.sealer WHERE epoch = p_epoch FOR UPDATE) THEN
        RETURN 'fenced';
    END IF;
    IF NOT EXISTS (SELECT FROM runwire.block WHERE block_no = p_size) THEN
        RETURN 'unknown';
    END IF;
    INSERT INTO runwire.checkpoint (size, note) VALUES (p_size, p_note) ON CONFLICT (size) DO NOTHING;
    RETURN 'ok';
END;
$$;

-- `sealed` once more from the blocks; for a leader that found it wanting.
CREATE FUNCTION runwire.rebuild_sealed(p_epoch integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b record;
BEGIN
    IF NOT EXISTS (SELECT FROM runwire.sealer WHERE epoch = p_epoch FOR UPDATE) THEN
        RETURN 'fenced';
    END IF;
    FOR b IN SELECT block_no, entries FROM runwire.block ORDER BY block_no LOOP
        PERFORM runwire.pin(b.block_no, b.entries, true);
    END LOOP;
    RETURN 'ok';
END;
$$;
