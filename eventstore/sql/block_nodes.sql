-- Promises: nodes of the tree, each from the row of the leaf that completes it. Index: block's primary key.
SELECT a.level, a.index, substr(b.nodes, a.level * 32 + 1, 32)
FROM unnest(%(levels)s::integer[], %(indexes)s::bigint[]) AS a (level, index)
JOIN runwire.block b ON b.block_no = (a.index + 1) << a.level
