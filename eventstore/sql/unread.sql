-- Promises: the runs that seem to have lost their readers. Reads readership whole: only open runs that ask for readers.
SELECT run_id, after_s
FROM runwire.unread(%(gone_s)s::double precision, %(limit)s::integer)
