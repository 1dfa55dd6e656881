-- Promises: where runs stand in line, at a cost that does not grow with the line. Index: queue's primary key, queue_lanes.
SELECT run_id, place, exact, why
FROM runwire.places(
    %(runs)s::uuid[], %(rows)s::integer, %(live_s)s::double precision, %(tenant_max)s::integer, %(caller_max)s::integer
)
