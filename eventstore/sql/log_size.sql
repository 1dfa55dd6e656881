-- Promises: how many blocks the log has, and the last one's header. Index: block's primary key.
SELECT block_no, header FROM runwire.block ORDER BY block_no DESC LIMIT 1
