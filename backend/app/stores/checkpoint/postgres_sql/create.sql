-- Adds a run, with its inputs beside it, unless there is one of this id.
--
-- The head's columns; inputs: their body.
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- One row (run_no, created_ms): added. No row: there is a run of this id, and nothing was changed.
-- Atomic: one statement; of two that add the same id at once one finds the other's.
WITH added AS (
    INSERT INTO nova_runs (
        created_ms, updated_ms, lease_token, version, next_step_index, head_hash, tenant_id, run_id, root_run_id,
        workflow, workflow_version, status, inputs_digest)
    SELECT now_ms, now_ms, 0, 0, 0, %(head_hash)b::bytea, %(tenant_id)s, %(run_id)s, %(root_run_id)s,
           %(workflow)s, %(workflow_version)s, 'running', %(inputs_digest)b::bytea
    FROM (SELECT coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now_ms) AS clock
    ON CONFLICT (tenant_id, run_id) DO NOTHING
    RETURNING run_no, created_ms
), kept AS (
    INSERT INTO nova_values (run_no, kind, body) SELECT run_no, 'inputs', %(inputs)b::bytea FROM added
)
SELECT run_no, created_ms FROM added
