-- What a step costs the server, made less: nothing is planned, parsed or checked at each step that could be before.

-- A domain is checked where a value is given, a CHECK of the table at every change of a row, whatever changes: it took a
-- fifteenth of a step. The domains get their conditions last: a column that becomes of a domain with a condition is
-- written anew with its whole table, which then looks empty to whoever has an older snapshot.
CREATE DOMAIN nova_status AS text COLLATE "C";
CREATE DOMAIN nova_waiting_for AS text COLLATE "C";
CREATE DOMAIN nova_tier AS text COLLATE "C";
ALTER TABLE nova_runs
    DROP CONSTRAINT nova_runs_status_check, DROP CONSTRAINT nova_runs_waiting_for_check, DROP CONSTRAINT nova_runs_tier_check,
    ALTER COLUMN status TYPE nova_status,
    ALTER COLUMN waiting_for TYPE nova_waiting_for,
    ALTER COLUMN tier TYPE nova_tier;
ALTER DOMAIN nova_status ADD CHECK (VALUE IN ('running', 'waiting', 'completed', 'failed', 'aborted'));
ALTER DOMAIN nova_waiting_for ADD CHECK (VALUE IN ('budget', 'signal'));
ALTER DOMAIN nova_tier ADD CHECK (VALUE IN ('hot', 'archived'));

-- Made last: of indexes that look equally good, as all of a new table do, the planner takes the newest, and nova_append
-- keeps its plan. An index, not a constraint, and named to follow the others: pg_dump restores constraints first, and
-- indexes by their names.
ALTER TABLE nova_runs DROP CONSTRAINT nova_runs_by_id;
CREATE UNIQUE INDEX nova_runs_key ON nova_runs (tenant_id, run_id);

-- Records one step: moves the head and adds the row, or does nothing. A function, so that a server session plans it once,
-- behind any pooler and without statements that the driver prepares: planning was half of what a step took.
--
-- p_digest, p_size_bytes: of the output.  p_meta, p_body: as codec.py writes them.
-- p_token: NULL for a writer without a lease.  p_version: the expected one, NULL if it is not checked.
-- p_hash_behind: what stands behind the parent's hash in the bytes that a step's hash is of (chain.py).
-- p_now_ms: the time in ms since 1970, NULL takes the database's.
--
-- 48 bytes: version and next_step_index after the step, 8 bytes each, and its hash; two columns more would take longer
-- than all of it. NULL: refused, and nothing was changed; the head tells why (rules.appended).
-- Atomic: called by a statement of its own. A writer that waited for another sees the moved head, and its conditions are
-- asked again. Two that wait with the same step meet at the unique key of nova_steps: the second is undone as a whole.
CREATE FUNCTION nova_append(
    p_tenant_id text, p_run_id text, p_step_id text, p_fingerprint text, p_digest bytea, p_meta bytea, p_body bytea,
    p_size_bytes integer, p_token bigint, p_version bigint, p_hash_behind bytea, p_now_ms bigint
) RETURNS bytea LANGUAGE plpgsql
-- The plan is kept while the tables grow, and to a table that is still small a planner prefers reading all of it.
SET enable_seqscan = off
AS $$
DECLARE
    v_run_no bigint;
    v_moment bigint;
    v_version bigint;
    v_count bigint;
    v_hash bytea;
BEGIN
    UPDATE nova_runs AS r
    SET version = r.version + 1,
        next_step_index = r.next_step_index + 1,
        updated_ms = coalesce(p_now_ms, floor(date_part('epoch', clock_timestamp()) * 1000)::bigint),
        -- What stands before the parent's hash: the name nova-step-1 and the number 32, each behind its length.
        head_hash = sha256('\x000000000000000b6e6f76612d737465702d310000000000000020' || r.head_hash || p_hash_behind),
        crashes = 0,
        lease_holder = CASE WHEN p_token IS NOT NULL THEN r.lease_holder END,
        lease_expires_ms = CASE WHEN p_token IS NOT NULL THEN r.lease_expires_ms END
    WHERE r.tenant_id = p_tenant_id AND r.run_id = p_run_id
      AND r.status IN ('running', 'waiting')
      AND CASE
          WHEN p_token IS NOT NULL THEN r.lease_token = p_token AND r.lease_holder IS NOT NULL
          ELSE r.lease_expires_ms IS NULL OR r.lease_expires_ms
               <= coalesce(p_now_ms, floor(date_part('epoch', clock_timestamp()) * 1000)::bigint)
          END
      AND (p_version IS NULL OR r.version = p_version)
      -- Not EXISTS, which is planned as a join: before the first statistics that reads all steps.
      AND (SELECT s.idx FROM nova_steps AS s WHERE s.run_no = r.run_no AND s.step_id = p_step_id) IS NULL
    RETURNING r.run_no, r.updated_ms, r.version, r.next_step_index, r.head_hash
    INTO v_run_no, v_moment, v_version, v_count, v_hash;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO nova_steps (run_no, recorded_ms, version, idx, size_bytes, step_id, fingerprint, output_digest, hash, meta, body)
    VALUES (v_run_no, v_moment, v_version, v_count - 1, p_size_bytes, p_step_id, p_fingerprint, p_digest, v_hash, p_meta,
            p_body);
    RETURN int8send(v_version) || int8send(v_count) || v_hash;
END
$$;
