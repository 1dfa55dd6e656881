-- Promises: appends one control event on the run's own chain, once. Index: head's primary key.
SELECT verdict, seq, status, owned
FROM runwire.control(%(run)s::uuid, %(type)s::text, %(version)s::smallint, %(occurred)s::bigint, %(body)s::bytea)
