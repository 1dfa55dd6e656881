-- Promises: runwire.append as it was before 0005_queue_end.sql.
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('runwire.append'::regproc), $b$
            IF c_status IN ('completed', 'failed', 'cancelled') THEN
                UPDATE runwire.head SET handed_at = clock_timestamp() WHERE run_id = h.run_id;
            END IF;$b$, '');
END;
$$;
