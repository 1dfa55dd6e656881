-- Promises: the runs whose head is past their seal, in the order of their ids, each as the bytes of a block's entry, with
-- the first seq that is new. One statement, hence one snapshot: what is committed and nothing else. Of the heads that are
-- awake only rows that a transaction from `horizon` on has written are looked up in sealed. Index: head_awake.
SELECT uuid_send(h.run_id) || uuid_send(h.tenant_id) || int4send(h.seq) || h.chain
       || CASE WHEN h.status IN ('completed', 'failed', 'cancelled') THEN '\x01'::bytea ELSE '\x00'::bytea END,
       coalesce(s.seq, 0) + 1
FROM runwire.head h LEFT JOIN runwire.sealed s USING (run_id)
WHERE NOT h.resting AND age(h.xmin) <= age(%(horizon)s::text::xid)
  AND (s.seq IS NULL OR h.seq > s.seq) AND octet_length(h.chain) = 32
ORDER BY h.run_id
LIMIT %(limit)s::integer
