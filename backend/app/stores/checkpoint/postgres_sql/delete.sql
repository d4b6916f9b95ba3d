-- Deletes a run as it was read: its head, its values, its steps and the note of its archived copy.
--
-- run_no; seen_version, seen_token, seen_expires_ms: of the head that the decision was made on.
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- One row (run_no): deleted. No row: the head has moved since it was read, and nothing was changed.
-- Atomic: one statement. A step that is recorded meanwhile moves the head, so none is left behind. Where there is an
-- archive a tombstone stays, so that no copy of the run brings it back.
WITH gone AS (
    DELETE FROM nova_runs
    WHERE run_no = %(run_no)s::bigint
      AND version = %(seen_version)s::bigint
      AND lease_token = %(seen_token)s::bigint
      AND lease_expires_ms IS NOT DISTINCT FROM %(seen_expires_ms)s::bigint
    RETURNING run_no, tenant_id, run_id, created_ms
), steps AS (
    DELETE FROM nova_steps AS s USING gone AS g WHERE s.run_no = g.run_no
), kept AS (
    DELETE FROM nova_values AS v USING gone AS g WHERE v.run_no = g.run_no
), buried AS (
    INSERT INTO nova_archive_tombstones (tenant_id, run_id, created_ms, deleted_ms)
    SELECT tenant_id, run_id, created_ms,
           coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    FROM gone
    WHERE (SELECT only_row FROM nova_archive_store WHERE only_row)
    ON CONFLICT DO NOTHING
)
SELECT run_no FROM gone
