-- Promises: the evidence format of docs/evidence-format.md, computed where the order is decided.

CREATE FUNCTION runwire.genesis(p_run uuid, p_tenant uuid) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT sha256('\x02'::bytea || 'runwire/1'::bytea || uuid_send(p_run) || uuid_send(p_tenant))
$$;

-- The listing of an append of one event. The worker makes its own (eventstore/domain/chain.py); this is for the API's.
CREATE FUNCTION runwire.listing(
    p_version smallint, p_type text, p_encoding smallint, p_key uuid, p_occurred bigint, p_body bytea
) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT sha256('\x00'::bytea || int2send(p_version) || int2send(octet_length(p_type)::smallint)
        || convert_to(p_type, 'UTF8') || int2send(p_encoding)
        || coalesce(uuid_send(p_key), '\x00000000000000000000000000000000'::bytea) || int8send(p_occurred) || sha256(p_body))
$$;

-- The chain after an append, from the chain before it.
CREATE FUNCTION runwire.link(
    p_before bytea, p_first integer, p_count integer, p_epoch integer, p_recorded bigint, p_listing bytea
) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT sha256('\x01'::bytea || p_before || int4send(p_first) || int4send(p_count) || int4send(p_epoch)
        || int8send(p_recorded) || p_listing)
$$;

-- The database's clock in whole microseconds.
CREATE FUNCTION runwire.clock_us() RETURNS bigint
LANGUAGE sql VOLATILE
AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;
