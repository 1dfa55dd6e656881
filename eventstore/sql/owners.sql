-- Promises: the workers that carry runs now, by the database's clock. Index: head_awake, the heads of open runs.
SELECT DISTINCT owner
FROM runwire.head
WHERE NOT resting AND lease_until > clock_timestamp()
