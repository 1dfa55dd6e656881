-- Promises: whether the log takes events, why not, and since when. One row.
SELECT shut, why, since FROM runwire.gate
