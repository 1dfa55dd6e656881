-- Promises: how far the sealed log has been walked: the last block that is done, and how many runs of the one after it.
SELECT block_no, place FROM runwire.followed
