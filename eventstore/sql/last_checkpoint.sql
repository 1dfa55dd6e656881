-- Promises: the largest checkpoint that is kept here. Index: checkpoint's primary key.
SELECT size, note FROM runwire.checkpoint ORDER BY size DESC LIMIT 1
