-- Promises: a new epoch whoever leads. For an operator only.
SELECT runwire.lead_over(%(owner)s::text, %(lease_s)s::double precision)
