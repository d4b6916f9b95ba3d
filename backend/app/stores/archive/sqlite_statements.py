"""The statements of the archive's ledger on the tables of ``checkpoint/sqlite_schema``."""

from __future__ import annotations

from typing import Final

# --- whose turn it is -------------------------------------------------------------------------------------------------

LEASE: Final = "SELECT epoch, holder, expires_ms FROM archive_lease"
TAKE_LEASE: Final = "UPDATE archive_lease SET epoch = ?, holder = ?, expires_ms = ?"
GIVE_LEASE_UP: Final = "UPDATE archive_lease SET holder = NULL, expires_ms = NULL WHERE epoch = ?"
FENCE: Final = "UPDATE archive_lease SET expires_ms = ? WHERE epoch = ? AND expires_ms > ?"
ADD_JOB: Final = "INSERT INTO archive_jobs (epoch, verb, holder, started_ms) VALUES (?, ?, ?, ?)"
END_JOB: Final = "UPDATE archive_jobs SET ended_ms = ?, outcome = ?, report = ? WHERE epoch = ?"
JOBS: Final = (
    "SELECT epoch, verb, holder, started_ms, ended_ms, outcome, report FROM archive_jobs ORDER BY epoch DESC LIMIT ?"
)

STORE_ID: Final = "SELECT store_id FROM archive_store"
BIND: Final = "INSERT INTO archive_store (only_row, store_id) VALUES (1, ?) ON CONFLICT DO NOTHING"

# --- copying ----------------------------------------------------------------------------------------------------------

TENANTS: Final = "SELECT DISTINCT tenant_id FROM checkpoint_runs WHERE tier = 'hot' ORDER BY tenant_id"
_TO_COPY: Final = (
    "r.tier = 'hot' AND r.updated_ms <= :until AND (r.lease_expires_ms IS NULL OR r.lease_expires_ms <= :now)"
    " AND f.version IS NOT r.version"
)
CANDIDATES: Final = (
    "SELECT r.run_no FROM checkpoint_runs r INDEXED BY checkpoint_runs_hot"
    " LEFT JOIN archive_frames f ON f.run_no = r.run_no"
    f" WHERE r.tenant_id = :tenant AND r.run_no > :after AND {_TO_COPY} ORDER BY r.run_no LIMIT :limit"
)
ADD_SEGMENT: Final = (
    "INSERT INTO archive_segments (tenant_id, object_key, epoch, state, changed_ms) VALUES (?, ?, ?, 'writing', ?)"
)
COMMIT_SEGMENT: Final = (
    "UPDATE archive_segments SET state = 'live', runs = ?, steps = ?, size_bytes = ?, sha256 = ?, changed_ms = ?,"
    " checked_ms = ? WHERE segment_no = ? AND state = 'writing'"
)
PLACE: Final = (
    "INSERT INTO archive_frames (run_no, version, segment_no, offset, length, steps, sha256, rows_sha256)"
    " SELECT run_no, :version, :segment_no, :offset, :length, :steps, :sha256, :rows_sha256 FROM checkpoint_runs"
    " WHERE run_no = :run_no AND version = :version"
    " ON CONFLICT (run_no) DO UPDATE SET version = excluded.version, segment_no = excluded.segment_no,"
    " offset = excluded.offset, length = excluded.length, steps = excluded.steps, sha256 = excluded.sha256,"
    " rows_sha256 = excluded.rows_sha256, restored_ms = NULL"
)
MOVE: Final = (
    "UPDATE archive_frames SET segment_no = :segment_no, offset = :offset, length = :length"
    " WHERE run_no = :run_no AND segment_no = :replaces AND sha256 = :sha256 AND version = :version"
)
ABANDON: Final = (
    "UPDATE archive_segments SET state = 'abandoned', changed_ms = ? WHERE segment_no = ? AND state = 'writing'"
)

# --- purging ----------------------------------------------------------------------------------------------------------

_PURGE_FROM: Final = (
    " JOIN archive_frames f ON f.run_no = r.run_no JOIN archive_segments s ON s.segment_no = f.segment_no"
)
_TO_PURGE: Final = (
    "r.tier = 'hot' AND r.status IN ('completed', 'failed', 'aborted') AND r.updated_ms <= {until}"
    " AND (f.restored_ms IS NULL OR f.restored_ms <= {until})"
    " AND (r.lease_expires_ms IS NULL OR r.lease_expires_ms <= :now)"
    " AND f.version = r.version AND s.state = 'live'"
)
PURGEABLE: Final = (
    f"SELECT r.run_no, f.segment_no FROM checkpoint_runs r INDEXED BY checkpoint_runs_hot{_PURGE_FROM}"
    f" WHERE r.tenant_id = :tenant AND r.run_no > :after AND {_TO_PURGE.format(until=':until')}"
    " ORDER BY r.run_no LIMIT :limit"
)
MAY_PURGE: Final = (
    f"SELECT r.tenant_id, r.run_id, f.steps, f.rows_sha256 FROM checkpoint_runs r{_PURGE_FROM}"
    f" WHERE r.run_no = :run_no AND {_TO_PURGE.format(until=':until')}"
)
PURGE_STEPS: Final = "DELETE FROM checkpoint_steps WHERE run_no = ?"
SET_TIER: Final = "UPDATE checkpoint_runs SET tier = ? WHERE run_no = ?"
COUNT_CANDIDATES: Final = (
    "SELECT (SELECT count(*) FROM checkpoint_runs r LEFT JOIN archive_frames f ON f.run_no = r.run_no"
    f" WHERE {_TO_COPY}),"
    f" (SELECT count(*) FROM checkpoint_runs r{_PURGE_FROM} WHERE {_TO_PURGE.format(until=':retained')})"
)

# --- looking after the segments ---------------------------------------------------------------------------------------

_SEGMENT: Final = (
    "SELECT s.segment_no, s.tenant_id, s.object_key, s.epoch, s.adopted, s.state, s.runs, s.steps, s.size_bytes,"
    " s.sha256, (SELECT count(*) FROM archive_frames f WHERE f.segment_no = s.segment_no) AS live_runs,"
    " (SELECT coalesce(sum(f.length), 0) FROM archive_frames f WHERE f.segment_no = s.segment_no) AS live_bytes"
    " FROM archive_segments s"
)
SEGMENTS: Final = (
    f"{_SEGMENT} WHERE s.state IN (SELECT value FROM json_each(:states)) AND s.segment_no > :after"
    " AND (:tenant IS NULL OR s.tenant_id = :tenant) ORDER BY s.segment_no LIMIT :limit"
)
PLACED: Final = (
    "SELECT f.run_no, r.run_id, r.created_ms, f.version, f.steps, f.offset, f.length, f.sha256, f.rows_sha256"
    " FROM archive_frames f JOIN checkpoint_runs r ON r.run_no = f.run_no WHERE f.segment_no = ? ORDER BY f.offset"
)
_UNUSED: Final = "NOT EXISTS (SELECT 1 FROM archive_frames f WHERE f.segment_no = archive_segments.segment_no)"
DROP_UNUSED: Final = (
    "UPDATE archive_segments SET state = 'deleting', changed_ms = ? WHERE segment_no = ? AND state = 'live'"
    f" AND adopted = 0 AND {_UNUSED}"
)
ABANDON_EARLIER: Final = (
    "UPDATE archive_segments SET state = 'abandoned', changed_ms = ? WHERE state = 'writing' AND epoch < ?"
)
DROP_ALL_UNUSED: Final = (
    "UPDATE archive_segments SET state = 'deleting', changed_ms = ? WHERE state IN ('live', 'suspect')"
    f" AND adopted = 0 AND {_UNUSED}"
)
LEFTOVERS: Final = f"{_SEGMENT} WHERE s.state IN ('abandoned', 'deleting') ORDER BY s.segment_no"
SWEPT: Final = (
    "UPDATE archive_segments SET state = 'deleted', changed_ms = :now WHERE segment_no = :segment_no"
    " AND (state = 'deleting' OR (state = 'abandoned' AND changed_ms <= :until))"
)
CHECKED: Final = (
    "UPDATE archive_segments SET checked_ms = ?, state = CASE state WHEN 'suspect' THEN 'live' ELSE state END"
    " WHERE segment_no = ?"
)
SUSPECT: Final = (
    "UPDATE archive_segments SET state = 'suspect', changed_ms = ? WHERE segment_no = ?"
    " AND state IN ('live', 'suspect')"
)
ARCHIVED_ONLY_IN: Final = (
    "SELECT r.tenant_id, r.run_id FROM archive_frames f JOIN checkpoint_runs r ON r.run_no = f.run_no"
    " WHERE f.segment_no = ? AND r.tier = 'archived' ORDER BY r.run_no"
)
DROP_HOT_COPIES: Final = (
    "DELETE FROM archive_frames WHERE segment_no = ?"
    " AND run_no IN (SELECT run_no FROM checkpoint_runs r WHERE r.run_no = archive_frames.run_no AND r.tier = 'hot')"
)

# --- deletions --------------------------------------------------------------------------------------------------------

ADD_TOMBSTONE: Final = (
    "INSERT INTO archive_tombstones (tenant_id, run_id, created_ms, deleted_ms, object_key) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
_OF_TENANT: Final = "run_no IN (SELECT run_no FROM checkpoint_runs WHERE tenant_id = ?)"
ERASE: Final = (
    ("frames", f"DELETE FROM archive_frames WHERE {_OF_TENANT}"),
    ("steps", f"DELETE FROM checkpoint_steps WHERE {_OF_TENANT}"),
    ("values", f"DELETE FROM checkpoint_values WHERE {_OF_TENANT}"),
    ("runs", "DELETE FROM checkpoint_runs WHERE tenant_id = ?"),
)
DROP_TENANT_SEGMENTS: Final = (
    "UPDATE archive_segments SET state = CASE state WHEN 'writing' THEN 'abandoned' ELSE 'deleting' END,"
    " changed_ms = ? WHERE tenant_id = ? AND state IN ('writing', 'live', 'suspect')"
)
TENANT_LEFTOVERS: Final = (
    f"{_SEGMENT} WHERE s.tenant_id = ? AND s.state IN ('abandoned', 'deleting') ORDER BY s.segment_no"
)
UNWRITTEN_TOMBSTONES: Final = (
    "SELECT tenant_id, run_id, created_ms, deleted_ms FROM archive_tombstones WHERE object_key IS NULL"
    " ORDER BY tenant_id LIMIT ?"
)
TOMBSTONE_WRITTEN: Final = (
    "UPDATE archive_tombstones SET object_key = ? WHERE tenant_id = ? AND run_id = ? AND created_ms = ?"
)

# --- rebuilding -------------------------------------------------------------------------------------------------------

KNOWN_KEYS: Final = (
    "SELECT object_key, state FROM archive_segments WHERE object_key IN (SELECT value FROM json_each(?))"
)
ADOPT_SEGMENT: Final = (
    "INSERT INTO archive_segments (tenant_id, object_key, epoch, adopted, state, runs, steps, size_bytes, sha256,"
    " changed_ms, checked_ms) VALUES (?, ?, ?, 1, 'live', ?, ?, ?, ?, ?, ?)"
)
IS_BURIED: Final = (
    "SELECT 1 FROM archive_tombstones WHERE tenant_id = ? AND (run_id = ? AND created_ms = ?"
    " OR run_id = '' AND created_ms >= ?) LIMIT 1"
)
NEEDS_COPY: Final = (
    "SELECT 1 FROM archive_frames f JOIN archive_segments s ON s.segment_no = f.segment_no JOIN checkpoint_runs r"
    " ON r.run_no = f.run_no WHERE f.run_no = ? AND f.version = r.version AND s.state <> 'suspect'"
)
