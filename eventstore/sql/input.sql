-- Promises: the input of a run, byte for byte as it was accepted. Index: input's primary key.
SELECT body FROM runwire.input WHERE run_id = %(run)s::uuid
