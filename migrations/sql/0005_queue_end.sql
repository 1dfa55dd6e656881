-- Promises: a run that ends leaves the queue with its last event, and no other append pays for it. A condition on a trigger
-- is read anew for every statement, which costs several times what storing an event costs; a list of columns costs nothing.
-- So the triggers look at columns that appends do not write, and an append that ends a run writes one of them.
DO $$
DECLARE
    v_old text := pg_get_functiondef('runwire.append'::regproc);
    v_new text := replace(v_old, $a$
            WHERE run_id = h.run_id;
        ELSE$a$, $b$
            WHERE run_id = h.run_id;
            IF c_status IN ('completed', 'failed', 'cancelled') THEN
                UPDATE runwire.head SET handed_at = clock_timestamp() WHERE run_id = h.run_id;
            END IF;
        ELSE$b$);
BEGIN
    IF v_new = v_old THEN
        RAISE EXCEPTION 'runwire.append is not what this migration knows';
    END IF;
    EXECUTE v_new;
END;
$$;
