-- Promises: room in the log for the weeks to come; answers how many partitions were made.
SELECT runwire.ensure_partitions()
