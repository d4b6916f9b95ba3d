-- Ends or parks a run as it was read: its status, and what belongs to it; the lease is given up.
--
-- run_no; seen_version, seen_token, seen_expires_ms: of the head that the decision was made on.
-- status, waiting_for, error, result_digest, crashes, version, updated_ms: the head's columns after it.
-- result: the body of the result, NULL for none.
--
-- One row (run_no): ended. No row: the head has moved since it was read, and nothing was changed.
-- Atomic: one statement.
WITH moved AS (
    UPDATE nova_runs
    SET status = %(status)s, waiting_for = %(waiting_for)s, error = %(error)s, result_digest = %(result_digest)b::bytea,
        lease_holder = NULL, lease_expires_ms = NULL, crashes = %(crashes)s::integer,
        version = %(version)s::bigint, updated_ms = %(updated_ms)s::bigint
    WHERE run_no = %(run_no)s::bigint
      AND version = %(seen_version)s::bigint
      AND lease_token = %(seen_token)s::bigint
      AND lease_expires_ms IS NOT DISTINCT FROM %(seen_expires_ms)s::bigint
    RETURNING run_no
), dropped AS (
    DELETE FROM nova_values AS v USING moved AS m
    WHERE %(result)b::bytea IS NULL AND v.run_no = m.run_no AND v.kind = 'result'
), kept AS (
    INSERT INTO nova_values (run_no, kind, body)
    SELECT run_no, 'result', %(result)b::bytea FROM moved WHERE %(result)b::bytea IS NOT NULL
    ON CONFLICT (run_no, kind) DO UPDATE SET body = excluded.body
)
SELECT run_no FROM moved
