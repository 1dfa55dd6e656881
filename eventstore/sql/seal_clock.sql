-- Promises: the database's clock in whole microseconds.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
