-- Gives a lease up.
--
-- tenant_id, run_id, token.
--
-- One row: it was held by this token, and is nobody's now. No row: the head tells why (rules.released).
-- Atomic: one statement, by token.
UPDATE nova_runs
SET lease_holder = NULL, lease_expires_ms = NULL
WHERE tenant_id = %(tenant_id)s AND run_id = %(run_id)s
  AND lease_token = %(token)s::bigint AND lease_holder IS NOT NULL
RETURNING run_no
