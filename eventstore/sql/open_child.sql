-- Promises: opens a child once, for its parent's owner. Indexes: the primary keys of head, child, run and workflow.
SELECT verdict, recorded_us
FROM runwire.open_child(
    %(parent)s::uuid, %(epoch)s::integer, %(key)s::text, %(run)s::uuid, %(workflow)s::text, %(title)s::text,
    %(input)s::bytea, %(version)s::smallint, %(occurred)s::bigint, %(accepted)s::bytea
)
