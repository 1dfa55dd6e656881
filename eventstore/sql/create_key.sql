-- Promises: stores a new key's digest, and makes its tenant when there is none of this name. For the owner only.
WITH made AS (
    INSERT INTO runwire.tenant (tenant_id, name) VALUES (gen_random_uuid(), %(tenant)s::text)
    ON CONFLICT (name) DO UPDATE SET name = excluded.name
    RETURNING tenant_id
)
INSERT INTO runwire.api_key (key_id, digest, tenant_id, subject, role)
SELECT %(key_id)s::text, %(digest)s::bytea, tenant_id, %(subject)s::text, %(role)s::text FROM made
