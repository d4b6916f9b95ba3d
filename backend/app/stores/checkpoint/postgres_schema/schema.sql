-- The whole schema as it is today: the sum of the numbered files beside this one, for people who make the tables by hand
-- (psql -1 -f schema.sql) and leave NOVA_AUTO_MIGRATE=false. A test holds the two equal.

CREATE TABLE nova_schema (
    component  text        NOT NULL,
    version    integer     NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (component, version)
);
INSERT INTO nova_schema (component, version) VALUES ('checkpoint', 1), ('checkpoint', 2), ('checkpoint', 3);

-- Runs: a small head that every write moves, what is large about a run beside it, and steps that are never changed.
--
-- Times are ms since 1970 UTC. Digests and hashes are 32 bytes of SHA-256. Bodies are as codec.py writes them.
-- Recording a step is one statement (nova_append): one row of nova_steps, and one update of the head.

-- The tokens of leases. One sequence for all runs, so that a writer to a run that was deleted cannot write to a later
-- run of the same id; a sequence never goes back, whatever is rolled back.
CREATE SEQUENCE nova_lease_token AS bigint;

-- A domain is checked where a value is given, a CHECK of the table at every change of a row, whatever changes: it took a
-- fifteenth of a step.
CREATE DOMAIN nova_status AS text COLLATE "C"
    CHECK (VALUE IN ('running', 'waiting', 'completed', 'failed', 'aborted'));
CREATE DOMAIN nova_waiting_for AS text COLLATE "C" CHECK (VALUE IN ('budget', 'signal'));
CREATE DOMAIN nova_tier AS text COLLATE "C" CHECK (VALUE IN ('hot', 'archived'));

-- lease_token is the highest token that was given for the run; lease_holder is NULL where no lease is held.
-- crashes counts the holders in a row that ended without recording a step and without giving their lease up.
-- tier: where the run's steps lie.
--
-- Moving the head must stay a heap-only update, because it happens at every step: no index has a column that a step
-- changes. Lists are by the time of the update all the same: their indexes have its minute, which a step changes at
-- most once a minute, and a list sorts the runs within a minute (an incremental sort, in the order that an index on
-- updated_ms would give). The columns that a step changes lie side by side, so that its WAL record holds only them.
CREATE TABLE nova_runs (
    run_no           bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- never used twice: steps and cursors refer to it
    created_ms       bigint  NOT NULL,
    lease_token      bigint  NOT NULL,
    lease_expires_ms bigint,
    version          bigint  NOT NULL,
    updated_ms       bigint  NOT NULL,
    updated_minute   bigint  NOT NULL GENERATED ALWAYS AS (updated_ms / 60000) STORED,
    next_step_index  integer NOT NULL,
    crashes          integer NOT NULL DEFAULT 0,
    head_hash        bytea   NOT NULL,
    tenant_id        text    COLLATE "C" NOT NULL,
    run_id           text    COLLATE "C" NOT NULL,
    root_run_id      text    COLLATE "C" NOT NULL,
    workflow         text    COLLATE "C" NOT NULL,
    workflow_version text    COLLATE "C" NOT NULL,
    status           nova_status NOT NULL,
    waiting_for      nova_waiting_for,
    error            text,
    inputs_digest    bytea   NOT NULL,
    result_digest    bytea,
    lease_holder     text    COLLATE "C",
    tier             nova_tier NOT NULL DEFAULT 'hot'
) WITH (fillfactor = 70);

CREATE INDEX nova_runs_by_update ON nova_runs (tenant_id, updated_minute);
CREATE INDEX nova_runs_by_status ON nova_runs (tenant_id, status, updated_minute);
CREATE INDEX nova_runs_by_workflow ON nova_runs (tenant_id, workflow, updated_minute);
-- Made last: of indexes that look equally good, as all of a new table do, the planner takes the newest, and nova_append
-- keeps its plan. An index, not a constraint, and named to follow the others: pg_dump restores constraints first, and
-- indexes by their names.
CREATE UNIQUE INDEX nova_runs_key ON nova_runs (tenant_id, run_id);

-- Inputs and results, so that moving the head does not rewrite them. Bodies are compressed already: EXTERNAL.
CREATE TABLE nova_values (
    run_no bigint NOT NULL,
    kind   text   COLLATE "C" NOT NULL CHECK (kind IN ('inputs', 'result')),
    body   bytea  NOT NULL,
    PRIMARY KEY (run_no, kind)
);
ALTER TABLE nova_values ALTER COLUMN body SET STORAGE EXTERNAL;

-- version is the run's version after the write that recorded the step: it tells a lost acknowledgement from a conflict.
-- No foreign key to nova_runs: it would lock the head once more, with a WAL record of its own, at every step. The
-- statement that inserts a step moves the head, and the one that deletes a head deletes its steps.
-- Rows up to a page stay whole: with the default of 2 KB, 400 steps of 2 KB cost 1.48 times their size in WAL, with
-- 8160 1.28 times (measured 2026-11).
CREATE TABLE nova_steps (
    run_no        bigint  NOT NULL,
    recorded_ms   bigint  NOT NULL,
    version       bigint  NOT NULL,
    idx           integer NOT NULL,
    size_bytes    integer NOT NULL,
    step_id       text    COLLATE "C" NOT NULL,
    fingerprint   text    COLLATE "C" NOT NULL,
    output_digest bytea   NOT NULL,
    hash          bytea   NOT NULL,
    meta          bytea   NOT NULL,
    body          bytea   NOT NULL,
    PRIMARY KEY (run_no, idx),
    CONSTRAINT nova_steps_by_id UNIQUE (run_no, step_id)
) WITH (toast_tuple_target = 8160);
ALTER TABLE nova_steps ALTER COLUMN meta SET STORAGE EXTERNAL;
ALTER TABLE nova_steps ALTER COLUMN body SET STORAGE EXTERNAL;

-- What the database knows of the archive. It alone says what is in it: an object counts from the commit of its segment.
--
-- Times are ms since 1970 UTC; hashes are 32 bytes of SHA-256. A run whose tier is 'archived' keeps its head and its
-- values here; its steps lie in the segment that nova_archive_frames names. The tables, columns and states are those of
-- sqlite_schema/0002_archive.sql, which says what each is for.

-- What the job walks. No step changes a column of it, so a step stays a heap-only update.
CREATE INDEX nova_runs_hot ON nova_runs (tenant_id, run_no) WHERE tier = 'hot';

CREATE TABLE nova_archive_store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    store_id text    NOT NULL
);

CREATE TABLE nova_archive_lease (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch      bigint  NOT NULL,
    holder     text,
    expires_ms bigint
);
INSERT INTO nova_archive_lease (epoch) VALUES (0);

CREATE TABLE nova_archive_jobs (
    epoch      bigint PRIMARY KEY,
    verb       text   NOT NULL,
    holder     text   NOT NULL,
    started_ms bigint NOT NULL,
    ended_ms   bigint,
    outcome    text,
    report     text
);

CREATE TABLE nova_archive_segments (
    segment_no bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id  text    COLLATE "C" NOT NULL,
    object_key text    COLLATE "C" NOT NULL UNIQUE,
    epoch      bigint  NOT NULL,
    adopted    boolean NOT NULL DEFAULT false,
    state      text    COLLATE "C" NOT NULL
               CHECK (state IN ('writing', 'live', 'suspect', 'abandoned', 'deleting', 'deleted')),
    runs       integer NOT NULL DEFAULT 0,
    steps      bigint  NOT NULL DEFAULT 0,
    size_bytes bigint  NOT NULL DEFAULT 0,
    sha256     bytea,
    changed_ms bigint  NOT NULL,
    checked_ms bigint
);
CREATE INDEX nova_archive_segments_by_state ON nova_archive_segments (state, tenant_id);

CREATE TABLE nova_archive_frames (
    run_no      bigint  PRIMARY KEY REFERENCES nova_runs ON DELETE CASCADE,
    segment_no  bigint  NOT NULL REFERENCES nova_archive_segments,
    version     bigint  NOT NULL,
    "offset"    bigint  NOT NULL,
    length      bigint  NOT NULL,
    steps       integer NOT NULL,
    sha256      bytea   NOT NULL,
    rows_sha256 bytea   NOT NULL,
    restored_ms bigint
);
CREATE INDEX nova_archive_frames_by_segment ON nova_archive_frames (segment_no);

CREATE TABLE nova_archive_tombstones (
    tenant_id  text   COLLATE "C" NOT NULL,
    run_id     text   COLLATE "C" NOT NULL,
    created_ms bigint NOT NULL,
    deleted_ms bigint NOT NULL,
    object_key text,
    PRIMARY KEY (tenant_id, run_id, created_ms)
);
CREATE INDEX nova_archive_tombstones_unwritten ON nova_archive_tombstones (tenant_id) WHERE object_key IS NULL;

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
