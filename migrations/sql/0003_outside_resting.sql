-- Promises: looking for moved heads does not read the heads of runs that ended long ago. A head rests once its run has
-- ended and its end is sealed. Appends never write `resting`, so their updates stay inside the page although there is an
-- index: it is over the heads that are awake, and changes when one is made and when one comes to rest.

ALTER TABLE runwire.head ADD COLUMN resting boolean NOT NULL DEFAULT false;
CREATE INDEX head_awake ON runwire.head (run_id) WHERE NOT resting;

-- Up to p_limit heads come to rest; answers how many did. A head that somebody holds is passed over: nobody waits for this.
CREATE FUNCTION runwire.rest_heads(p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rested integer;
BEGIN
    UPDATE runwire.head h SET resting = true
    WHERE h.run_id IN (
        SELECT a.run_id FROM runwire.head a JOIN runwire.sealed s ON s.run_id = a.run_id AND s.closed AND s.seq = a.seq
        WHERE NOT a.resting AND a.status IN ('completed', 'failed', 'cancelled')
        ORDER BY a.run_id LIMIT p_limit FOR NO KEY UPDATE OF a SKIP LOCKED
    );
    GET DIAGNOSTICS v_rested = ROW_COUNT;
    RETURN v_rested;
END;
$$;

-- Heads that rest although they should not: their run goes on, or they are not where they were sealed. For a leader that
-- begins, and after an acknowledged loss. Answers how many there were.
CREATE FUNCTION runwire.wake_heads() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_woken integer;
BEGIN
    UPDATE runwire.head h SET resting = false
    WHERE h.run_id IN (
        SELECT a.run_id FROM runwire.head a LEFT JOIN runwire.sealed s USING (run_id)
        WHERE a.resting AND (a.status NOT IN ('completed', 'failed', 'cancelled') OR s.seq IS DISTINCT FROM a.seq)
        FOR NO KEY UPDATE OF a SKIP LOCKED
    );
    GET DIAGNOSTICS v_woken = ROW_COUNT;
    RETURN v_woken;
END;
$$;
