-- Promises: stores batches for many runs in one call and gives each run its verdict. Index: head's primary key.
SELECT run_id, verdict, first_seq, last_seq, recorded_us, status, cancel
FROM runwire.append(
    %(runs)s::uuid[], %(epochs)s::integer[], %(batches)s::integer[], %(counts)s::integer[], %(listings)s::bytea[],
    %(types)s::text[], %(versions)s::smallint[], %(occurred)s::bigint[], %(encodings)s::smallint[],
    %(keys)s::uuid[], %(bodies)s::bytea[], %(lease_s)s::double precision
)
