-- Promises: gives a claimed run back at once. Index: head's primary key.
SELECT runwire.release(%(run)s::uuid, %(epoch)s::integer)
