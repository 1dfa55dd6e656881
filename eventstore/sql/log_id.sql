-- Promises: which log this is. One row.
SELECT log_id FROM runwire.identity
