-- Adds a run that begins with a whole state: head, inputs and steps, unless there is one of this id.
--
-- The head's columns; inputs: their body; the steps as arrays side by side (save.sql).
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- One row (run_no): added. No row: there is a run of this id, and nothing was changed.
-- Atomic: one statement.
WITH added AS (
    INSERT INTO nova_runs (
        created_ms, updated_ms, lease_token, version, next_step_index, head_hash, tenant_id, run_id, root_run_id,
        workflow, workflow_version, status, inputs_digest)
    SELECT now_ms, now_ms, 0, %(version)s::bigint, %(next_step_index)s::integer, %(head_hash)b::bytea, %(tenant_id)s,
           %(run_id)s, %(root_run_id)s, %(workflow)s, %(workflow_version)s, %(status)s, %(inputs_digest)b::bytea
    FROM (SELECT coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now_ms) AS clock
    ON CONFLICT (tenant_id, run_id) DO NOTHING
    RETURNING run_no, created_ms
), kept AS (
    INSERT INTO nova_values (run_no, kind, body) SELECT run_no, 'inputs', %(inputs)b::bytea FROM added
), steps AS (
    INSERT INTO nova_steps (run_no, recorded_ms, version, idx, size_bytes, step_id, fingerprint, output_digest, hash, meta, body)
    SELECT a.run_no, a.created_ms, %(version)s::bigint, s.idx, s.size_bytes, s.step_id, '', s.output_digest,
           s.hash, s.meta, s.body
    FROM added AS a, unnest(%(idx)s::integer[], %(size_bytes)s::integer[], %(step_id)s::text[], %(output_digest)b::bytea[],
                            %(hash)b::bytea[], %(meta)b::bytea[], %(body)b::bytea[])
         AS s (idx, size_bytes, step_id, output_digest, hash, meta, body)
)
SELECT run_no FROM added
