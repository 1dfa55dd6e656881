-- Promises: what one API process tells of its readers, all of it or nothing; writes only for runs that ask for readers.
-- Index: the primary keys of readership and reporter.
SELECT runs, at
FROM runwire.report_readers(
    %(process)s::uuid, %(runs)s::uuid[], %(agos)s::double precision[], %(known)s::timestamptz,
    %(gone_s)s::double precision, %(leaves)s::boolean
)
