-- Promises: whether any head that is awake is past its seal: a row, or none. Reads those heads at worst. Index: head_awake.
SELECT true FROM runwire.head h LEFT JOIN runwire.sealed s USING (run_id)
WHERE NOT h.resting AND (s.seq IS NULL OR h.seq > s.seq) AND octet_length(h.chain) = 32
LIMIT 1
