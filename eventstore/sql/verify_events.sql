-- Promises: the whole log in the order of runs and seqs, page by page, bounded by rows and by the bytes of the bodies as
-- in read_after; nothing only when the log is over. Index: the partitions' primary keys.
SELECT run_id, seq, epoch, type, version, occurred_us, recorded_us, encoding, key_id, body, chain
FROM (
    SELECT found.*, sum(LEAST(octet_length(body), %(bytes)s::integer)) OVER (ROWS UNBOUNDED PRECEDING) AS held
    FROM (
        SELECT * FROM runwire.event
        WHERE (run_id, seq) > (%(run)s::uuid, %(seq)s::integer)
        ORDER BY run_id, seq
        LIMIT %(limit)s::integer
    ) found
) counted
WHERE held <= %(bytes)s::integer
