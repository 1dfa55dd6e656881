-- Promises: a run of which all waits is given back until it is due, unless the log has moved. Index: head's primary key.
SELECT runwire.suspend(%(run)s::uuid, %(epoch)s::integer, %(seq)s::integer, %(due)s::bigint)
