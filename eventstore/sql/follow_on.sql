-- Promises: moves the mark, unless another follower has moved it meanwhile. No row is the answer to who was slower.
UPDATE runwire.followed SET block_no = %(to_no)s::bigint, place = %(to_place)s::integer, at = clock_timestamp()
WHERE block_no = %(no)s::bigint AND place = %(place)s::integer
RETURNING block_no
