-- Promises: says what a worker covers, and brings back what is due or lost. Index: queue_due, queue_carried.
SELECT due, lost
FROM runwire.tend(%(names)s::text[], %(versions)s::integer[], %(lease_s)s::double precision)
