-- Moves a head as it was read, and adds steps behind its last: what a whole state has more than is recorded.
--
-- run_no; seen_version, seen_token, seen_expires_ms: of the head that the decision was made on.
-- status, version, next_step_index, head_hash, lease_holder, lease_expires_ms, updated_ms: the head's columns after it.
-- idx, size_bytes, step_id, output_digest, hash, meta, body: the steps, as arrays side by side.
--
-- One row (run_no): saved. No row: the head has moved since it was read, and nothing was changed.
-- Atomic: one statement.
WITH moved AS (
    UPDATE nova_runs
    SET status = %(status)s, waiting_for = NULL, error = NULL, result_digest = NULL, crashes = 0,
        version = %(version)s::bigint, next_step_index = %(next_step_index)s::integer, head_hash = %(head_hash)b::bytea,
        lease_holder = %(lease_holder)s, lease_expires_ms = %(lease_expires_ms)s::bigint,
        updated_ms = %(updated_ms)s::bigint
    WHERE run_no = %(run_no)s::bigint
      AND version = %(seen_version)s::bigint
      AND lease_token = %(seen_token)s::bigint
      AND lease_expires_ms IS NOT DISTINCT FROM %(seen_expires_ms)s::bigint
    RETURNING run_no
), dropped AS (
    DELETE FROM nova_values AS v USING moved AS m WHERE v.run_no = m.run_no AND v.kind = 'result'
), steps AS (
    INSERT INTO nova_steps (run_no, recorded_ms, version, idx, size_bytes, step_id, fingerprint, output_digest, hash, meta, body)
    SELECT m.run_no, %(updated_ms)s::bigint, %(version)s::bigint, s.idx, s.size_bytes, s.step_id, '', s.output_digest,
           s.hash, s.meta, s.body
    FROM moved AS m, unnest(%(idx)s::integer[], %(size_bytes)s::integer[], %(step_id)s::text[], %(output_digest)b::bytea[],
                            %(hash)b::bytea[], %(meta)b::bytea[], %(body)b::bytea[])
         AS s (idx, size_bytes, step_id, output_digest, hash, meta, body)
)
SELECT run_no FROM moved
