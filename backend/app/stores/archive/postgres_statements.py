"""The statements of the archive's ledger on the tables of ``checkpoint/postgres_schema``.

``now_ms``: the time in ms since 1970; in the statements that begin a verb NULL takes the database's.
"""

from __future__ import annotations

from typing import Final

from app.stores.checkpoint.rows import StoredHead

_NOW: Final = "coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
_HEAD: Final = ", ".join(f"r.{name}" for name in StoredHead._fields)

# --- whose turn it is -------------------------------------------------------------------------------------------------

LEASE: Final = f"SELECT epoch, holder, expires_ms, {_NOW} FROM nova_archive_lease FOR UPDATE"
TAKE_LEASE: Final = (
    "UPDATE nova_archive_lease SET epoch = %(epoch)s, holder = %(holder)s, expires_ms = %(expires_ms)s::bigint"
)
GIVE_LEASE_UP: Final = "UPDATE nova_archive_lease SET holder = NULL, expires_ms = NULL WHERE epoch = %(epoch)s"
FENCE: Final = (
    f"UPDATE nova_archive_lease SET expires_ms = {_NOW} + %(lease_ms)s::bigint"
    f" WHERE epoch = %(epoch)s AND expires_ms > {_NOW} RETURNING expires_ms - %(lease_ms)s::bigint"
)
ADD_JOB: Final = (
    "INSERT INTO nova_archive_jobs (epoch, verb, holder, started_ms)"
    " VALUES (%(epoch)s, %(verb)s, %(holder)s, %(now_ms)s)"
)
END_JOB: Final = (
    f"UPDATE nova_archive_jobs SET ended_ms = {_NOW}, outcome = %(outcome)s, report = %(report)s"
    " WHERE epoch = %(epoch)s"
)
JOBS: Final = (
    "SELECT epoch, verb, holder, started_ms, ended_ms, outcome, report FROM nova_archive_jobs"
    " ORDER BY epoch DESC LIMIT %(limit)s"
)
STORE_ID: Final = "SELECT store_id FROM nova_archive_store"
BIND: Final = "INSERT INTO nova_archive_store (store_id) VALUES (%(store_id)s) ON CONFLICT DO NOTHING"

# --- copying ----------------------------------------------------------------------------------------------------------

TENANTS: Final = "SELECT DISTINCT tenant_id FROM nova_runs WHERE tier = 'hot' ORDER BY tenant_id"
_TO_COPY: Final = (
    f"r.tier = 'hot' AND r.updated_ms <= {_NOW} - %(idle_ms)s::bigint"
    f" AND (r.lease_expires_ms IS NULL OR r.lease_expires_ms <= {_NOW}) AND f.version IS DISTINCT FROM r.version"
)
# First which runs, then how large they are: of the others no step is looked at. The sizes are those of stored bodies,
# which lie beside their rows uncompressed: no body is read for them.
CANDIDATES: Final = (
    "WITH picked AS MATERIALIZED (SELECT r.run_no FROM nova_runs AS r"
    " LEFT JOIN nova_archive_frames AS f ON f.run_no = r.run_no"
    f" WHERE r.tenant_id = %(tenant_id)s AND r.run_no > %(after)s::bigint AND {_TO_COPY}"
    " ORDER BY r.run_no LIMIT %(limit)s), sized AS (SELECT p.run_no, coalesce((SELECT"
    " sum(octet_length(s.body) + octet_length(s.meta)) FROM nova_steps AS s WHERE s.run_no = p.run_no), 0) AS size"
    " FROM picked AS p), found AS (SELECT run_no, sum(size) OVER (ORDER BY run_no) - size AS before FROM sized)"
    f" SELECT r.run_no, {_HEAD}, {_NOW}, i.body, o.body FROM found AS n JOIN nova_runs AS r ON r.run_no = n.run_no"
    " LEFT JOIN nova_values AS i ON i.run_no = r.run_no AND i.kind = 'inputs'"
    " LEFT JOIN nova_values AS o ON o.run_no = r.run_no AND o.kind = 'result'"
    " WHERE n.before < %(limit_bytes)s::bigint ORDER BY r.run_no"
)
STEPS_OF: Final = (
    "SELECT run_no, idx, step_id, fingerprint, output_digest, hash, version, size_bytes, recorded_ms, meta, body"
    " FROM nova_steps WHERE run_no = ANY(%(run_nos)s::bigint[]) ORDER BY run_no, idx"
)
ADD_SEGMENT: Final = (
    "INSERT INTO nova_archive_segments (tenant_id, object_key, epoch, state, changed_ms)"
    " VALUES (%(tenant_id)s, %(object_key)s, %(epoch)s, 'writing', %(now_ms)s) RETURNING segment_no"
)
COMMIT_SEGMENT: Final = (
    "UPDATE nova_archive_segments SET state = 'live', runs = %(runs)s, steps = %(steps)s, size_bytes = %(size_bytes)s,"
    " sha256 = %(sha256)b, changed_ms = %(now_ms)s, checked_ms = %(now_ms)s"
    " WHERE segment_no = %(segment_no)s AND state = 'writing' RETURNING segment_no"
)
_FRAMES: Final = (
    "unnest(%(run_nos)s::bigint[], %(versions)s::bigint[], %(offsets)s::bigint[], %(lengths)s::bigint[],"
    " %(step_counts)s::integer[], %(hashes)s::bytea[], %(rows_hashes)s::bytea[])"
    " AS n (run_no, version, place, length, steps, sha256, rows_sha256)"
)
PLACE: Final = (
    'INSERT INTO nova_archive_frames AS f (run_no, segment_no, version, "offset", length, steps, sha256, rows_sha256)'
    " SELECT n.run_no, %(segment_no)s::bigint, n.version, n.place, n.length, n.steps, n.sha256, n.rows_sha256"
    f" FROM {_FRAMES} JOIN nova_runs AS r ON r.run_no = n.run_no AND r.version = n.version"
    " ON CONFLICT (run_no) DO UPDATE SET segment_no = excluded.segment_no, version = excluded.version,"
    ' "offset" = excluded."offset", length = excluded.length, steps = excluded.steps, sha256 = excluded.sha256,'
    " rows_sha256 = excluded.rows_sha256, restored_ms = NULL RETURNING f.run_no"
)
MOVE: Final = (
    'UPDATE nova_archive_frames AS f SET segment_no = %(segment_no)s, "offset" = n.place, length = n.length'
    f" FROM {_FRAMES} WHERE f.run_no = n.run_no AND f.segment_no = %(replaces)s AND f.sha256 = n.sha256"
    " AND f.version = n.version RETURNING f.run_no"
)
ABANDON: Final = (
    "UPDATE nova_archive_segments SET state = 'abandoned', changed_ms = %(now_ms)s"
    " WHERE segment_no = %(segment_no)s AND state = 'writing'"
)

# --- purging ----------------------------------------------------------------------------------------------------------

_PURGE_FROM: Final = (
    "nova_runs AS r JOIN nova_archive_frames AS f ON f.run_no = r.run_no"
    " JOIN nova_archive_segments AS s ON s.segment_no = f.segment_no"
)
_TO_PURGE: Final = (
    "r.tier = 'hot' AND r.status IN ('completed', 'failed', 'aborted')"
    f" AND r.updated_ms <= {_NOW} - %(retention_ms)s::bigint"
    f" AND (f.restored_ms IS NULL OR f.restored_ms <= {_NOW} - %(retention_ms)s::bigint)"
    f" AND (r.lease_expires_ms IS NULL OR r.lease_expires_ms <= {_NOW})"
    " AND f.version = r.version AND s.state = 'live'"
)
PURGEABLE: Final = (
    f"SELECT r.run_no, f.segment_no FROM {_PURGE_FROM} WHERE r.tenant_id = %(tenant_id)s"
    f" AND r.run_no > %(after)s::bigint AND {_TO_PURGE} ORDER BY r.run_no LIMIT %(limit)s"
)
# The heads are locked first: one that moved while the lock was waited for is asked again, and left out.
PURGE: Final = (
    "WITH locked AS MATERIALIZED (SELECT r.run_no, r.tenant_id, r.run_id, f.steps, f.rows_sha256"
    f" FROM {_PURGE_FROM} WHERE r.run_no = ANY(%(run_nos)s::bigint[]) AND {_TO_PURGE} FOR UPDATE OF r),"
    " hashed AS MATERIALIZED (SELECT n.run_no, n.tenant_id, n.run_id, n.steps, count(t.idx) = n.steps AND"
    " sha256(coalesce(string_agg(sha256(t.body) || sha256(t.meta) || t.hash, ''::bytea ORDER BY t.idx), ''::bytea))"
    " = n.rows_sha256 AS same FROM locked AS n LEFT JOIN nova_steps AS t ON t.run_no = n.run_no"
    " GROUP BY n.run_no, n.tenant_id, n.run_id, n.steps, n.rows_sha256),"
    " gone AS (DELETE FROM nova_steps AS t USING hashed AS h WHERE h.same AND t.run_no = h.run_no),"
    " moved AS (UPDATE nova_runs AS r SET tier = 'archived' FROM hashed AS h WHERE h.same AND r.run_no = h.run_no)"
    " SELECT tenant_id, run_id, steps, same FROM hashed"
)
COUNT_CANDIDATES: Final = (
    "SELECT (SELECT count(*) FROM nova_runs AS r LEFT JOIN nova_archive_frames AS f ON f.run_no = r.run_no"
    f" WHERE {_TO_COPY}), (SELECT count(*) FROM {_PURGE_FROM} WHERE {_TO_PURGE})"
)

# --- looking after the segments ---------------------------------------------------------------------------------------

_SEGMENT: Final = (
    "SELECT s.segment_no, s.tenant_id, s.object_key, s.epoch, s.adopted, s.state, s.runs, s.steps, s.size_bytes,"
    " s.sha256, (SELECT count(*) FROM nova_archive_frames AS f WHERE f.segment_no = s.segment_no),"
    " (SELECT coalesce(sum(f.length), 0)::bigint FROM nova_archive_frames AS f WHERE f.segment_no = s.segment_no)"
    " FROM nova_archive_segments AS s"
)
SEGMENTS: Final = (
    f"{_SEGMENT} WHERE s.state = ANY(%(states)s::text[]) AND s.segment_no > %(after)s"
    " AND (%(tenant_id)s::text IS NULL OR s.tenant_id = %(tenant_id)s) ORDER BY s.segment_no LIMIT %(limit)s"
)
PLACED: Final = (
    'SELECT f.run_no, r.run_id, r.created_ms, f.version, f.steps, f."offset", f.length, f.sha256, f.rows_sha256'
    " FROM nova_archive_frames AS f JOIN nova_runs AS r ON r.run_no = f.run_no"
    ' WHERE f.segment_no = %(segment_no)s ORDER BY f."offset"'
)
_UNUSED: Final = "NOT EXISTS (SELECT FROM nova_archive_frames AS f WHERE f.segment_no = s.segment_no)"
DROP_UNUSED: Final = (
    "UPDATE nova_archive_segments AS s SET state = 'deleting', changed_ms = %(now_ms)s"
    f" WHERE s.segment_no = %(segment_no)s AND s.state = 'live' AND NOT s.adopted AND {_UNUSED}"
)
DROP_ALL_UNUSED: Final = (
    "UPDATE nova_archive_segments AS s SET state = 'deleting', changed_ms = %(now_ms)s"
    f" WHERE s.state IN ('live', 'suspect') AND NOT s.adopted AND {_UNUSED}"
)
ABANDON_EARLIER: Final = (
    "UPDATE nova_archive_segments SET state = 'abandoned', changed_ms = %(now_ms)s"
    " WHERE state = 'writing' AND epoch < %(epoch)s"
)
LEFTOVERS: Final = f"{_SEGMENT} WHERE s.state IN ('abandoned', 'deleting') ORDER BY s.segment_no"
SWEPT: Final = (
    "UPDATE nova_archive_segments SET state = 'deleted', changed_ms = %(now_ms)s"
    " WHERE segment_no = ANY(%(segment_nos)s::bigint[]) AND (state = 'deleting'"
    " OR (state = 'abandoned' AND changed_ms <= %(now_ms)s::bigint - %(abandoned_ms)s::bigint))"
)
CHECKED: Final = (
    "UPDATE nova_archive_segments SET checked_ms = %(now_ms)s,"
    " state = CASE state WHEN 'suspect' THEN 'live' ELSE state END WHERE segment_no = %(segment_no)s"
)
SUSPECT: Final = (
    "UPDATE nova_archive_segments SET state = 'suspect', changed_ms = %(now_ms)s"
    " WHERE segment_no = %(segment_no)s AND state IN ('live', 'suspect')"
)
ARCHIVED_ONLY_IN: Final = (
    "SELECT r.tenant_id, r.run_id FROM nova_archive_frames AS f JOIN nova_runs AS r ON r.run_no = f.run_no"
    " WHERE f.segment_no = %(segment_no)s AND r.tier = 'archived' ORDER BY r.run_no"
)
DROP_HOT_COPIES: Final = (
    "DELETE FROM nova_archive_frames AS f USING nova_runs AS r"
    " WHERE f.segment_no = %(segment_no)s AND r.run_no = f.run_no AND r.tier = 'hot' RETURNING f.run_no"
)

# --- deletions --------------------------------------------------------------------------------------------------------

BURY_TENANT: Final = (
    "INSERT INTO nova_archive_tombstones (tenant_id, run_id, created_ms, deleted_ms)"
    " VALUES (%(tenant_id)s, '', %(now_ms)s, %(now_ms)s) ON CONFLICT DO NOTHING"
)
ERASE: Final = (
    "WITH runs AS (DELETE FROM nova_runs WHERE tenant_id = %(tenant_id)s RETURNING run_no),"
    " kept AS (DELETE FROM nova_values AS v USING runs AS r WHERE v.run_no = r.run_no),"
    " steps AS (DELETE FROM nova_steps AS s USING runs AS r WHERE s.run_no = r.run_no RETURNING s.idx)"
    " SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM steps)"
)
DROP_TENANT_SEGMENTS: Final = (
    "UPDATE nova_archive_segments SET state = CASE state WHEN 'writing' THEN 'abandoned' ELSE 'deleting' END,"
    " changed_ms = %(now_ms)s WHERE tenant_id = %(tenant_id)s AND state IN ('writing', 'live', 'suspect')"
)
TENANT_LEFTOVERS: Final = (
    f"{_SEGMENT} WHERE s.tenant_id = %(tenant_id)s AND s.state IN ('abandoned', 'deleting') ORDER BY s.segment_no"
)
UNWRITTEN_TOMBSTONES: Final = (
    "SELECT tenant_id, run_id, created_ms, deleted_ms FROM nova_archive_tombstones WHERE object_key IS NULL"
    " ORDER BY tenant_id LIMIT %(limit)s"
)
_TOMBSTONES: Final = (
    "unnest(%(tenant_ids)s::text[], %(run_ids)s::text[], %(created)s::bigint[], %(deleted)s::bigint[])"
    " AS n (tenant_id, run_id, created_ms, deleted_ms)"
)
TOMBSTONES_WRITTEN: Final = (
    f"UPDATE nova_archive_tombstones AS t SET object_key = %(object_key)s FROM {_TOMBSTONES}"
    " WHERE t.tenant_id = n.tenant_id AND t.run_id = n.run_id AND t.created_ms = n.created_ms"
)
BURY: Final = (
    "INSERT INTO nova_archive_tombstones (tenant_id, run_id, created_ms, deleted_ms, object_key)"
    f" SELECT tenant_id, run_id, created_ms, deleted_ms, %(object_key)s FROM {_TOMBSTONES} ON CONFLICT DO NOTHING"
)

# --- rebuilding -------------------------------------------------------------------------------------------------------

KNOWN_KEYS: Final = "SELECT object_key, state FROM nova_archive_segments WHERE object_key = ANY(%(keys)s::text[])"
ADOPT_SEGMENT: Final = (
    "INSERT INTO nova_archive_segments (tenant_id, object_key, epoch, adopted, state, runs, steps, size_bytes, sha256,"
    " changed_ms, checked_ms) VALUES (%(tenant_id)s, %(object_key)s, %(epoch)s, true, 'live', %(runs)s, %(steps)s,"
    " %(size_bytes)s, %(sha256)b, %(now_ms)s, %(now_ms)s) RETURNING segment_no"
)
IS_BURIED: Final = (
    "SELECT 1 FROM nova_archive_tombstones WHERE tenant_id = %(tenant_id)s AND ((run_id = %(run_id)s"
    " AND created_ms = %(created_ms)s::bigint) OR (run_id = '' AND created_ms >= %(created_ms)s::bigint)) LIMIT 1"
)
KNOWN_RUN: Final = (
    "SELECT r.run_no, r.created_ms, r.version, r.tier, s.segment_no IS NOT NULL FROM nova_runs AS r"
    " LEFT JOIN nova_archive_frames AS f ON f.run_no = r.run_no AND f.version = r.version"
    " LEFT JOIN nova_archive_segments AS s ON s.segment_no = f.segment_no AND s.state <> 'suspect'"
    " WHERE r.tenant_id = %(tenant_id)s AND r.run_id = %(run_id)s FOR UPDATE OF r"
)
ADD_ARCHIVED: Final = (
    "WITH added AS (INSERT INTO nova_runs (created_ms, updated_ms, lease_token, version, next_step_index, head_hash,"
    " tenant_id, run_id, root_run_id, workflow, workflow_version, status, waiting_for, error, inputs_digest,"
    " result_digest, tier) VALUES (%(created_ms)s, %(updated_ms)s, 0, %(version)s, %(next_step_index)s, %(head_hash)b,"
    " %(tenant_id)s, %(run_id)s, %(root_run_id)s, %(workflow)s, %(workflow_version)s, %(status)s, %(waiting_for)s,"
    " %(error)s, %(inputs_digest)b, %(result_digest)b::bytea, 'archived') RETURNING run_no),"
    " inputs AS (INSERT INTO nova_values (run_no, kind, body) SELECT run_no, 'inputs', %(inputs)b::bytea FROM added),"
    " result AS (INSERT INTO nova_values (run_no, kind, body) SELECT run_no, 'result', %(result)b::bytea FROM added"
    " WHERE %(result)b::bytea IS NOT NULL)"
    " SELECT run_no FROM added"
)
BRING_FORWARD: Final = (
    "WITH moved AS (UPDATE nova_runs SET updated_ms = %(updated_ms)s, version = %(version)s,"
    " next_step_index = %(next_step_index)s, head_hash = %(head_hash)b, status = %(status)s,"
    " waiting_for = %(waiting_for)s, error = %(error)s, result_digest = %(result_digest)b::bytea"
    " WHERE run_no = %(run_no)s RETURNING run_no),"
    " dropped AS (DELETE FROM nova_values AS v USING moved AS m WHERE %(result)b::bytea IS NULL"
    " AND v.run_no = m.run_no AND v.kind = 'result')"
    " INSERT INTO nova_values (run_no, kind, body) SELECT run_no, 'result', %(result)b::bytea FROM moved"
    " WHERE %(result)b::bytea IS NOT NULL ON CONFLICT (run_no, kind) DO UPDATE SET body = excluded.body"
)
