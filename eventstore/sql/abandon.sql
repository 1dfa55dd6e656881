-- Promises: the cancel request that nobody made, once, and not while somebody reads. Index: the primary keys of
-- readership, head and event.
SELECT verdict, seq, status, owned
FROM runwire.abandon(
    %(run)s::uuid, %(gone_s)s::double precision, %(version)s::smallint, %(occurred)s::bigint, %(body)s::bytea
)
