-- Promises: whose key this is and what its digest is; nothing for a revoked one. Index: api_key's primary key.
SELECT k.digest, k.tenant_id, t.name, k.subject, k.role
FROM runwire.api_key k JOIN runwire.tenant t USING (tenant_id)
WHERE k.key_id = %(key_id)s::text AND k.revoked_at IS NULL
