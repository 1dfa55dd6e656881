-- Promises: up to which event these runs were sealed. Index: sealed's primary key.
SELECT run_id, seq FROM runwire.sealed WHERE run_id = ANY (%(runs)s::uuid[])
