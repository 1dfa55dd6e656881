-- Promises: keeps that a sealed run does not fit its chain; found again, it is kept once.
INSERT INTO runwire.mismatch (run_id, block_no, seq, fault)
VALUES (%(run)s::uuid, %(no)s::bigint, %(seq)s::integer, %(fault)s) ON CONFLICT DO NOTHING
