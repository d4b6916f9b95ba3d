-- Deletes a run as it was read: its head, its values and its steps.
--
-- run_no; seen_version, seen_token, seen_expires_ms: of the head that the decision was made on.
--
-- One row (run_no): deleted. No row: the head has moved since it was read, and nothing was changed.
-- Atomic: one statement. A step that is recorded meanwhile moves the head, so none is left behind.
WITH gone AS (
    DELETE FROM nova_runs
    WHERE run_no = %(run_no)s::bigint
      AND version = %(seen_version)s::bigint
      AND lease_token = %(seen_token)s::bigint
      AND lease_expires_ms IS NOT DISTINCT FROM %(seen_expires_ms)s::bigint
    RETURNING run_no
), steps AS (
    DELETE FROM nova_steps AS s USING gone AS g WHERE s.run_no = g.run_no
), kept AS (
    DELETE FROM nova_values AS v USING gone AS g WHERE v.run_no = g.run_no
)
SELECT run_no FROM gone
