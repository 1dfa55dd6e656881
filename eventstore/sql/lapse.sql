-- Promises: the decision that nobody made in time, once, and not before. Index: the primary keys of head and event.
SELECT verdict, seq, status, owned
FROM runwire.lapse(%(run)s::uuid, %(version)s::smallint, %(occurred)s::bigint, %(body)s::bytea)
