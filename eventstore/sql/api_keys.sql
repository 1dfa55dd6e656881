-- Promises: whose keys these are and what their digests are; nothing for a revoked one. Index: api_key's primary key.
SELECT k.key_id, k.digest, k.tenant_id, t.name, k.subject, k.role
FROM unnest(%(key_ids)s::text[]) AS asked (key_id)
JOIN runwire.api_key k USING (key_id)
JOIN runwire.tenant t USING (tenant_id)
WHERE k.revoked_at IS NULL
