-- Promises: the new epoch for one sealer while no other leads; NULL for every other.
SELECT runwire.lead(%(owner)s::text, %(lease_s)s::double precision)
