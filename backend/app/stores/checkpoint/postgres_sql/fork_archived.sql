-- Adds a run that is a copy of the beginning of an archived one: head and inputs from the database, steps as given.
--
-- tenant_id, run_id: the new one's.  source_no: the run that is copied.  steps: how many of its steps.
-- head_hash: the chain's end after them; the columns of the steps as arrays side by side.
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- One row (created_ms): added. No row: there is a run of the new id, or the other is gone or not archived any more;
-- nothing was changed.
-- Atomic: one statement, on one snapshot.
WITH added AS (
    INSERT INTO nova_runs (
        created_ms, updated_ms, lease_token, version, next_step_index, head_hash, tenant_id, run_id, root_run_id,
        workflow, workflow_version, status, inputs_digest)
    SELECT now_ms, now_ms, 0, 0, %(steps)s::integer, %(head_hash)b::bytea, %(tenant_id)s, %(run_id)s, r.root_run_id,
           r.workflow, r.workflow_version, 'running', r.inputs_digest
    FROM nova_runs AS r,
         (SELECT coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now_ms) AS clock
    WHERE r.run_no = %(source_no)s::bigint AND r.tier = 'archived'
    ON CONFLICT (tenant_id, run_id) DO NOTHING
    RETURNING run_no, created_ms
), kept AS (
    INSERT INTO nova_values (run_no, kind, body)
    SELECT a.run_no, 'inputs', v.body FROM added AS a, nova_values AS v
    WHERE v.run_no = %(source_no)s::bigint AND v.kind = 'inputs'
), steps AS (
    INSERT INTO nova_steps (run_no, recorded_ms, version, idx, size_bytes, step_id, fingerprint, output_digest, hash, meta, body)
    SELECT a.run_no, s.*
    FROM added AS a, unnest(
        %(recorded_ms)s::bigint[], %(version)s::bigint[], %(idx)s::integer[], %(size_bytes)s::integer[],
        %(step_id)s::text[], %(fingerprint)s::text[], %(output_digest)b::bytea[], %(hash)b::bytea[], %(meta)b::bytea[],
        %(body)b::bytea[]) AS s
)
SELECT created_ms FROM added
