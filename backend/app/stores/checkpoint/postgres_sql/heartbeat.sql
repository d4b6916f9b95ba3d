-- Prolongs leases from now on, of any number of runs of a tenant.
--
-- tenant_id; run_ids, tokens: two arrays side by side.  lease_ms: the new length.
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- A row (run_id) for each lease that was prolonged; the others are superseded, released, or of no run.
-- Atomic: one statement, by token. The version stays: a lease alone does not count.
UPDATE nova_runs AS r
SET lease_expires_ms = coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
                       + %(lease_ms)s::bigint
FROM unnest(%(run_ids)s::text[], %(tokens)s::bigint[]) AS held (run_id, token)
WHERE r.tenant_id = %(tenant_id)s AND r.run_id = held.run_id
  AND r.lease_token = held.token AND r.lease_holder IS NOT NULL
RETURNING r.run_id
