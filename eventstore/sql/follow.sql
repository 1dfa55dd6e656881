-- Promises: the events of many stretches, each from after one seq to another, in the order asked, until their bodies have
-- `bytes` (the first event is always there). Index: the partitions' primary keys. The length of a stored body is known
-- without reading it.
SELECT place, run_id, seq, epoch, type, version, occurred_us, recorded_us, encoding, key_id, body, chain
FROM (
    SELECT a.place, e.*, sum(octet_length(e.body)) OVER (ORDER BY a.place, e.seq) - octet_length(e.body) AS before
    FROM unnest(%(runs)s::uuid[], %(afters)s::integer[], %(lasts)s::integer[]) WITH ORDINALITY
        AS a (run, after, last, place)
    CROSS JOIN LATERAL (
        SELECT * FROM runwire.event WHERE event.run_id = a.run AND event.seq > a.after AND event.seq <= a.last
        ORDER BY event.seq LIMIT a.last - a.after
    ) e
) AS stretch
WHERE before < %(bytes)s::bigint
ORDER BY place, seq
