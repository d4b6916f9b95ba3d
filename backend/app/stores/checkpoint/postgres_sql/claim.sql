-- Takes the lease of a run as it was read, with a token above every earlier one.
--
-- run_no; seen_version, seen_token, seen_expires_ms: of the head that the decision was made on.
-- holder, expires_ms; crashes: their count now.
-- status, waiting_for, error, version, updated_ms: as they are after the claim.
--
-- One row (lease_token): taken. No row: the head has moved since it was read, and nothing was changed.
-- Atomic: one statement. The token is drawn again where the row was changed meanwhile; above the last one also where a
-- replica that took over has lost the sequence's place.
UPDATE nova_runs
SET lease_token = greatest(lease_token + 1, nextval('nova_lease_token')),
    lease_holder = %(holder)s,
    lease_expires_ms = %(expires_ms)s::bigint,
    crashes = %(crashes)s::integer,
    status = %(status)s,
    waiting_for = %(waiting_for)s,
    error = %(error)s,
    version = %(version)s::bigint,
    updated_ms = %(updated_ms)s::bigint
WHERE run_no = %(run_no)s::bigint
  AND version = %(seen_version)s::bigint
  AND lease_token = %(seen_token)s::bigint
  AND lease_expires_ms IS NOT DISTINCT FROM %(seen_expires_ms)s::bigint
RETURNING lease_token
