-- Promises: one call, one transaction, a verdict per run, and nothing stored for a run whose verdict is not `ok`.
--
-- A group holds batches for many runs. Per run: run, epoch, batch number, how many events, and their listing (the hash
-- of them all that the chain goes by, made by the writer). Per event, in the order of the runs: type, version, occurred,
-- encoding, key, body. The answer has one row per run, in the order asked.
--
--   ok            stored; first_seq to last_seq
--   duplicate     this (epoch, batch) was stored before; the range it got then
--   out_of_order  the batch number is not the next one
--   fenced        another worker has claimed the run since
--   closed        the run has ended
--   refused       the life cycle has no place for one of the events (a result after a cancel request, say)
--   unknown       no such run
--
-- Heads are locked in run_id order, so two groups cannot deadlock, and the lock is held to commit. The lock is taken
-- first and everything is judged under it. A batch without events is a heartbeat: it renews the lease.
-- Events are gathered in arrays that are filled to full length beforehand, one slot per event of the call: a run with a
-- bad verdict leaves its slots empty, and nothing can shift into a neighbour's place. Every statement inside names its
-- row by key, so one plan is good for all calls; sessions ask for a plan per call, which costs half of a small append.
CREATE FUNCTION runwire.append(
    p_runs uuid[], p_epochs integer[], p_batches integer[], p_counts integer[], p_listings bytea[],
    p_types text[], p_versions smallint[], p_occurred bigint[], p_encodings smallint[], p_keys uuid[], p_bodies bytea[],
    p_lease_s double precision
) RETURNS TABLE (
    run_id uuid, verdict text, first_seq integer, last_seq integer, recorded_us bigint, status text, cancel boolean
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_runs    integer := coalesce(cardinality(p_runs), 0);
    v_events  integer := coalesce(cardinality(p_types), 0);
    v_start   integer[] := array_fill(0, ARRAY[greatest(v_runs, 1)]);
    v_verdict text[] := array_fill(NULL::text, ARRAY[greatest(v_runs, 1)]);
    v_first   integer[] := array_fill(NULL::integer, ARRAY[greatest(v_runs, 1)]);
    v_last    integer[] := array_fill(NULL::integer, ARRAY[greatest(v_runs, 1)]);
    v_at      bigint[] := array_fill(NULL::bigint, ARRAY[greatest(v_runs, 1)]);
    v_status  text[] := array_fill(NULL::text, ARRAY[greatest(v_runs, 1)]);
    v_link    bytea[] := array_fill(NULL::bytea, ARRAY[greatest(v_runs, 1)]);
    v_cancel  boolean[] := array_fill(NULL::boolean, ARRAY[greatest(v_runs, 1)]);
    e_seq     integer[] := array_fill(NULL::integer, ARRAY[greatest(v_events, 1)]);
    e_place   integer[] := array_fill(NULL::integer, ARRAY[greatest(v_events, 1)]);
    v_total   integer := 0;
    v_stored  boolean := false;
    h         runwire.head;
    i         integer;
    k         integer;
    c_status  text;
    c_seq     integer;
    c_at      bigint;
    c_chain   bytea;
    m_status  text;
    m_type    text;
    m_next    text;
BEGIN
    IF v_runs = 0 OR cardinality(p_epochs) <> v_runs OR cardinality(p_batches) <> v_runs OR cardinality(p_counts) <> v_runs
       OR coalesce(cardinality(p_listings), 0) <> v_runs
       OR EXISTS (SELECT FROM unnest(p_listings) m WHERE octet_length(m) IS DISTINCT FROM 32)
       OR coalesce(cardinality(p_versions), 0) <> v_events OR coalesce(cardinality(p_occurred), 0) <> v_events
       OR coalesce(cardinality(p_encodings), 0) <> v_events OR coalesce(cardinality(p_keys), 0) <> v_events
       OR coalesce(cardinality(p_bodies), 0) <> v_events
       OR EXISTS (SELECT FROM unnest(p_counts) n WHERE n < 0)
       OR (SELECT count(DISTINCT r) FROM unnest(p_runs) r) <> v_runs THEN
        RAISE EXCEPTION 'append: the arrays do not fit together' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR i IN 1 .. v_runs LOOP
        v_start[i] := v_total;
        v_total := v_total + p_counts[i];
    END LOOP;
    IF v_total IS DISTINCT FROM v_events THEN
        RAISE EXCEPTION 'append: % events announced, % sent', v_total, v_events USING ERRCODE = 'invalid_parameter_value';
    END IF;

    FOR i IN SELECT o FROM unnest(p_runs) WITH ORDINALITY AS u (r, o) ORDER BY r LOOP
        SELECT * INTO h FROM runwire.head WHERE run_id = p_runs[i] FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            v_verdict[i] := 'unknown';
            CONTINUE;
        END IF;
        v_status[i] := h.status;
        v_cancel[i] := h.cancel;
        IF p_epochs[i] IS DISTINCT FROM h.epoch OR h.epoch = 0 THEN
            v_verdict[i] := 'fenced';
        ELSIF p_counts[i] > 0 AND p_batches[i] IS NOT DISTINCT FROM h.batch_no THEN
            v_verdict[i] := 'duplicate';
            v_first[i] := h.batch_first;
            v_last[i] := h.batch_last;
            v_at[i] := (SELECT recorded_us FROM runwire.event WHERE run_id = h.run_id AND seq = h.batch_last);
        ELSIF h.status IN ('completed', 'failed', 'cancelled') THEN
            v_verdict[i] := 'closed';
        ELSIF p_counts[i] > 0 AND p_batches[i] IS DISTINCT FROM h.batch_no + 1 THEN
            v_verdict[i] := 'out_of_order';
        ELSE
            v_verdict[i] := 'ok';
        END IF;
        IF v_verdict[i] <> 'ok' THEN
            CONTINUE;
        END IF;

        c_status := h.status;
        c_seq := h.seq;
        c_at := greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, h.recorded_us);
        FOR k IN v_start[i] + 1 .. v_start[i] + p_counts[i] LOOP
            -- The table is asked once for events that follow each other alike, in this run or the next.
            IF p_types[k] IS DISTINCT FROM m_type OR c_status IS DISTINCT FROM m_status THEN
                SELECT t.next INTO m_next FROM runwire.transition t
                WHERE t.status = c_status AND t.type = p_types[k] AND t.writer = 'worker';
                IF NOT FOUND THEN
                    m_type := NULL;
                    v_verdict[i] := 'refused';
                    EXIT;
                END IF;
                m_type := p_types[k];
                m_status := c_status;
            END IF;
            c_status := m_next;
            c_seq := c_seq + 1;
            e_seq[k] := c_seq;
            e_place[k] := i;
        END LOOP;
        IF v_verdict[i] = 'refused' THEN
            FOR k IN v_start[i] + 1 .. v_start[i] + p_counts[i] LOOP
                e_place[k] := NULL;
            END LOOP;
            CONTINUE;
        END IF;

        IF p_counts[i] > 0 THEN
            v_stored := true;
            v_first[i] := h.seq + 1;
            v_last[i] := c_seq;
            v_at[i] := c_at;
            v_status[i] := c_status;
            -- runwire.link, written out: a call of an SQL function costs several times what the hash costs.
            c_chain := sha256('\x01'::bytea || h.chain || int4send(h.seq + 1) || int4send(p_counts[i]) || int4send(h.epoch)
                              || int8send(c_at) || p_listings[i]);
            v_link[i] := c_chain;
            UPDATE runwire.head SET status = c_status, seq = c_seq, chain = c_chain, recorded_us = c_at,
                batch_no = p_batches[i], batch_first = h.seq + 1, batch_last = c_seq,
                lease_until = clock_timestamp() + make_interval(secs => p_lease_s)
            WHERE run_id = h.run_id;
        ELSE
            v_first[i] := h.seq + 1;
            v_last[i] := h.seq;
            v_at[i] := h.recorded_us;
            -- A run that its owner has given back stays given back: a heartbeat may still have been on its way.
            UPDATE runwire.head SET lease_until = clock_timestamp() + make_interval(secs => p_lease_s)
            WHERE run_id = h.run_id AND lease_until IS NOT NULL;
        END IF;
    END LOOP;

    IF v_stored THEN
        INSERT INTO runwire.event (run_id, seq, epoch, version, encoding, type, occurred_us, recorded_us, key_id, chain, body)
        SELECT p_runs[u.place], u.seq, p_epochs[u.place], u.version, u.encoding, u.type, u.occurred, v_at[u.place], u.key,
            v_link[u.place], u.body
        FROM unnest(e_place, e_seq, p_versions, p_encodings, p_types, p_occurred, p_keys, p_bodies)
            AS u (place, seq, version, encoding, type, occurred, key, body)
        WHERE u.place IS NOT NULL;
    END IF;
    RETURN QUERY SELECT * FROM unnest(p_runs, v_verdict, v_first, v_last, v_at, v_status, v_cancel);
END;
$$;
