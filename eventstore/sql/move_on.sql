-- Promises: a run that begins anew is offered under its new version from then on. Index: the primary keys of queue and head.
SELECT runwire.move_on(%(run)s::uuid, %(epoch)s::integer, %(version)s::integer)
