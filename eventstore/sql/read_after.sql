-- Promises: the next events of one run in order, a prefix of what follows, bounded by rows and by the bytes of the
-- bodies; at least one if there is one. If the log holds more, one row follows without its body: it says so, and no more.
-- octet_length reads the length that stands in the row, so a body that is not sent is not fetched either. The first body
-- counts as no more than the bound, so that it always fits. Index: the partition's primary key.
SELECT run_id, seq, epoch, type, version, occurred_us, recorded_us, encoding, key_id,
       CASE WHEN held <= %(bytes)s::integer AND place <= %(limit)s::integer THEN body END AS body, chain
FROM (
    SELECT found.*,
           sum(LEAST(octet_length(body), %(bytes)s::integer)) OVER page AS held,
           row_number() OVER page AS place
    FROM (
        SELECT * FROM runwire.event
        WHERE run_id = %(run)s::uuid AND seq > %(after)s::integer
        ORDER BY seq
        LIMIT %(limit)s::integer + 1
    ) found
    WINDOW page AS (ROWS UNBOUNDED PRECEDING)
) counted
WHERE held - LEAST(octet_length(body), %(bytes)s::integer) <= %(bytes)s::integer
