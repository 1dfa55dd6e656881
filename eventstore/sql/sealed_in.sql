-- Promises: how many runs were sealed last in this block. Reads sealed whole: for a sealer that has just taken the lead.
SELECT count(*) FROM runwire.sealed WHERE block_no = %(no)s::bigint
