-- Promises: heads of ended and sealed runs are not looked at again; how many more than before. Waits for no lock.
SELECT runwire.rest_heads(%(limit)s::integer)
