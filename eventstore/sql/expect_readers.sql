-- Promises: from now on this run is stopped when nobody reads it for so long. Index: readership's primary key.
SELECT runwire.expect_readers(%(run)s::uuid, %(after_s)s::double precision, %(while_waiting)s::boolean)
