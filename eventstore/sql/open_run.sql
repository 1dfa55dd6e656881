-- Promises: accepts a run with its input, once per idempotency key. Index: idempotency's primary key.
SELECT verdict, run_id, recorded_us
FROM runwire.open_run(
    %(run)s::uuid, %(tenant)s::uuid, %(subject)s::text, %(workflow)s::text, %(title)s::text, %(key)s::text,
    %(body_digest)s::bytea, %(input)s::bytea, %(version)s::smallint, %(occurred)s::bigint, %(accepted)s::bytea
)
