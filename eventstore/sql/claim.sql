-- Promises: at most one owner per run, by the database's clock. Index: head's primary key.
SELECT verdict, tenant_id, epoch, seq, status, cancel, parked
FROM runwire.claim(%(run)s::uuid, %(owner)s::text, %(lease_s)s::double precision)
