-- Promises: the next events of many runs in one question, each from its own cursor. Index: the partitions' primary keys.
SELECT e.run_id, e.seq, e.epoch, e.type, e.version, e.occurred_us, e.recorded_us, e.encoding, e.key_id, e.body, e.chain
FROM unnest(%(runs)s::uuid[], %(afters)s::integer[]) AS asked (run_id, after)
CROSS JOIN LATERAL (
    SELECT * FROM runwire.event
    WHERE event.run_id = asked.run_id AND event.seq > asked.after
    ORDER BY event.seq
    LIMIT %(limit)s::integer
) e
