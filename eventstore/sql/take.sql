-- Promises: the next runs that a worker may start, claimed. Index: queue_lanes, and the others of queue.
SELECT run_id, tenant_id, epoch, seq, status, cancel, parked, crashes, blamed, why
FROM runwire.take(
    %(owner)s::text, %(lease_s)s::double precision, %(room)s::integer, %(on_trial)s::integer,
    %(suspects)s::integer, %(names)s::text[], %(versions)s::integer[], %(tenant_max)s::integer, %(caller_max)s::integer,
    %(endings)s::integer, %(wait_s)s::double precision, %(up_s)s::double precision
)
