-- What the database knows of the archive. It alone says what is in it: an object counts from the commit of its segment.
--
-- Times are ms since 1970 UTC; hashes are 32 bytes of SHA-256. A run whose tier is 'archived' keeps its head and its
-- values here; its steps lie in the segment that nova_archive_frames names. The tables, columns and states are those of
-- sqlite_schema/0002_archive.sql, which says what each is for.

ALTER TABLE nova_runs DROP COLUMN archived_version, DROP COLUMN archived_hash, DROP COLUMN archive_key;

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
