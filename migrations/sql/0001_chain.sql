-- Promises: the evidence format of docs/evidence-format.md, computed where the order is decided.

CREATE FUNCTION runwire.genesis(p_run uuid, p_tenant uuid) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT sha256('\x02'::bytea || 'runwire/1'::bytea || uuid_send(p_run) || uuid_send(p_tenant))
$$;

-- chain(n) from chain(n-1) and event n: SHA256(0x01 || before || leaf), leaf as the format says.
CREATE FUNCTION runwire.link(
    p_before bytea, p_run uuid, p_seq integer, p_epoch integer, p_version smallint, p_type text,
    p_occurred bigint, p_recorded bigint, p_encoding smallint, p_key uuid, p_body bytea
) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT sha256('\x01'::bytea || p_before || sha256(
        '\x00'::bytea || 'runwire/1'::bytea || uuid_send(p_run) || int4send(p_seq) || int4send(p_epoch)
        || int2send(p_version) || int2send(octet_length(p_type)::smallint) || convert_to(p_type, 'UTF8')
        || int8send(p_occurred) || int8send(p_recorded) || int2send(p_encoding)
        || coalesce(uuid_send(p_key), '\x00000000000000000000000000000000'::bytea) || sha256(p_body)))
$$;

-- The database's clock in whole microseconds.
CREATE FUNCTION runwire.clock_us() RETURNS bigint
LANGUAGE sql VOLATILE
AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;
