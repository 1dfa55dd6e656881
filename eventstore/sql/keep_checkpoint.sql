-- Promises: a published checkpoint, once per size, if this epoch still leads. Index: checkpoint's primary key.
SELECT runwire.keep_checkpoint(%(epoch)s::integer, %(size)s::bigint, %(note)s::text)
