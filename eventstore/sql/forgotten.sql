-- Promises: runs that nobody works on, each offered to one caller at a time. Reads head whole: it holds a row per run.
SELECT run_id, epoch, status, cancel
FROM runwire.forgotten(%(after_s)s::double precision, %(limit)s::integer)
