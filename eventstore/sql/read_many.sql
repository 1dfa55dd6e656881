-- Promises: the next events of many runs in one question, each from its own cursor, run after run in the order asked.
-- All of it together is one page, bounded by rows and by the bytes of the bodies as in read_after, with at least one
-- event if there is one. Where it is cut, one row follows without its body; the runs behind it were not read at all.
-- The inner limit keeps each run's scan on its index; the outer one ends the scan. Index: the partitions' primary keys.
SELECT run_id, seq, epoch, type, version, occurred_us, recorded_us, encoding, key_id,
       CASE WHEN held <= %(bytes)s::integer AND place <= %(limit)s::integer THEN body END AS body, chain
FROM (
    SELECT found.*,
           sum(LEAST(octet_length(body), %(bytes)s::integer)) OVER page AS held,
           row_number() OVER page AS place
    FROM (
        SELECT e.* FROM unnest(%(runs)s::uuid[], %(afters)s::integer[]) AS asked (run_id, after)
        CROSS JOIN LATERAL (
            SELECT * FROM runwire.event
            WHERE event.run_id = asked.run_id AND event.seq > asked.after
            ORDER BY event.seq
            LIMIT %(limit)s::integer + 1
        ) e
        LIMIT %(limit)s::integer + 1
    ) found
    WINDOW page AS (ROWS UNBOUNDED PRECEDING)
) counted
WHERE held - LEAST(octet_length(body), %(bytes)s::integer) <= %(bytes)s::integer
