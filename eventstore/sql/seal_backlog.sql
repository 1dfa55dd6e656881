-- Promises: the next heads that are awake, in the order of their ids, each with the bytes of a block's entry and the first seq
-- that is new if it is past its seal, else without. For a leader that knows no horizon: it goes through all of them page
-- by page, and no page reads more than itself. Index: head_awake, and sealed's primary key once per head.
WITH page AS MATERIALIZED (
    SELECT h.run_id, h.tenant_id, h.seq, h.chain, h.status FROM runwire.head h
    WHERE NOT h.resting AND h.run_id > %(after)s::uuid
    ORDER BY h.run_id
    LIMIT %(limit)s::integer
)
SELECT p.run_id,
       CASE WHEN (s.seq IS NULL OR p.seq > s.seq) AND octet_length(p.chain) = 32 THEN
           uuid_send(p.run_id) || uuid_send(p.tenant_id) || int4send(p.seq) || p.chain
           || CASE WHEN p.status IN ('completed', 'failed', 'cancelled') THEN '\x01'::bytea ELSE '\x00'::bytea END
       END,
       coalesce(s.seq, 0) + 1
FROM page p LEFT JOIN LATERAL (SELECT k.seq FROM runwire.sealed k WHERE k.run_id = p.run_id OFFSET 0) s ON true
ORDER BY p.run_id
