-- What the database knows of the archive. It alone says what is in it: an object counts from the commit of its segment.
--
-- Times are ms since 1970 UTC; hashes are 32 bytes of SHA-256. A run whose tier is 'archived' keeps its head and its
-- values here; its steps lie in the segment that archive_frames names.

-- Where a run lies is in archive_frames; these were reserved for it and never written.
ALTER TABLE checkpoint_runs DROP COLUMN archived_version;
ALTER TABLE checkpoint_runs DROP COLUMN archived_hash;
ALTER TABLE checkpoint_runs DROP COLUMN archive_key;

-- What the job walks. No write of a run touches it but a change of its tier.
CREATE INDEX checkpoint_runs_hot ON checkpoint_runs (tenant_id) WHERE tier = 'hot';

-- Whose archive the objects are; one row once there is an archive.
CREATE TABLE archive_store (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    store_id TEXT NOT NULL
);

-- One job at a time. epoch grows with every job and fences the earlier ones.
CREATE TABLE archive_lease (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch      INTEGER NOT NULL,
    holder     TEXT,
    expires_ms INTEGER
);
INSERT INTO archive_lease (only_row, epoch) VALUES (1, 0);

-- One row for each run of the job, so that monitoring sees one that stopped running.
CREATE TABLE archive_jobs (
    epoch      INTEGER PRIMARY KEY,
    verb       TEXT    NOT NULL,
    holder     TEXT    NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms   INTEGER,
    outcome    TEXT,             -- done, partial, unverified, fenced, failed; NULL while it runs, or where it was killed
    report     TEXT              -- JSON
);

-- writing:   the intent, before any byte is sent
-- live:      its object is whole, was read back and decoded
-- suspect:   its object is missing or damaged
-- abandoned: its job did not come to the commit; its object, if there is one, is deleted again and again for a week
-- deleting:  nothing refers to it any more; its object is to be deleted
-- deleted:   it is
CREATE TABLE archive_segments (
    segment_no INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id  TEXT    NOT NULL,
    object_key TEXT    NOT NULL UNIQUE,
    epoch      INTEGER NOT NULL,
    adopted    INTEGER NOT NULL DEFAULT 0,  -- 1: found by a rebuild; what else it holds may be known nowhere, so it stays
    state      TEXT    NOT NULL CHECK (state IN ('writing', 'live', 'suspect', 'abandoned', 'deleting', 'deleted')),
    runs       INTEGER NOT NULL DEFAULT 0,
    steps      INTEGER NOT NULL DEFAULT 0,
    size_bytes INTEGER NOT NULL DEFAULT 0,
    sha256     BLOB,
    changed_ms INTEGER NOT NULL,
    checked_ms INTEGER             -- when it was last read whole and found right
);
CREATE INDEX archive_segments_by_state ON archive_segments (state, tenant_id);

-- The archived copy of a run: at most one, that of its latest version that was copied.
CREATE TABLE archive_frames (
    run_no      INTEGER PRIMARY KEY REFERENCES checkpoint_runs,
    version     INTEGER NOT NULL,
    segment_no  INTEGER NOT NULL REFERENCES archive_segments,
    offset      INTEGER NOT NULL,
    length      INTEGER NOT NULL,
    steps       INTEGER NOT NULL,
    sha256      BLOB    NOT NULL,  -- of the bytes in the object
    rows_sha256 BLOB    NOT NULL,  -- of the rows that were copied; a purge compares it
    restored_ms INTEGER            -- when the run was last brought back
);
CREATE INDEX archive_frames_by_segment ON archive_frames (segment_no);

-- What was deleted: a run, named by id and time of creation, or with an empty run_id everything of a tenant that was
-- created up to created_ms. The archive obeys it, whatever an old copy of the database says.
CREATE TABLE archive_tombstones (
    tenant_id  TEXT    NOT NULL,
    run_id     TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    deleted_ms INTEGER NOT NULL,
    object_key TEXT,               -- the object that says the same; NULL until the next job has written it
    PRIMARY KEY (tenant_id, run_id, created_ms)
) WITHOUT ROWID;
CREATE INDEX archive_tombstones_unwritten ON archive_tombstones (tenant_id) WHERE object_key IS NULL;
