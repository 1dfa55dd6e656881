-- Promises: where a run's log stands. Index: head's primary key.
SELECT run_id, tenant_id, status, seq, chain, recorded_us, epoch, cancel
FROM runwire.head
WHERE run_id = %(run)s::uuid
