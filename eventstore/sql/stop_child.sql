-- Promises: asks a child to stop, for its parent's owner. Indexes: the primary keys of child and head.
SELECT verdict, seq, status, owned
FROM runwire.stop_child(
    %(parent)s::uuid, %(epoch)s::integer, %(run)s::uuid, %(version)s::smallint, %(occurred)s::bigint, %(body)s::bytea
)
