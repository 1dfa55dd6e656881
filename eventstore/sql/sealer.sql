-- Promises: who leads, and whether the lease still runs by the database's clock. One row.
SELECT epoch, owner, coalesce(lease_until > clock_timestamp(), false) FROM runwire.sealer
