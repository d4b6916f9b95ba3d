-- Brings the steps of an archived run back; its copy in the archive stays.
--
-- run_no; the columns of its steps as arrays side by side; rows_sha256: of these rows, for a later purge.
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- One row (run_no): brought back. No row: it is not archived any more, and nothing was changed.
-- Atomic: one statement; two that restore at once meet at the head.
WITH back AS (
    UPDATE nova_runs SET tier = 'hot' WHERE run_no = %(run_no)s::bigint AND tier = 'archived' RETURNING run_no
), noted AS (
    UPDATE nova_archive_frames AS f
    SET rows_sha256 = %(rows_sha256)b::bytea,
        restored_ms = coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    FROM back AS b WHERE f.run_no = b.run_no
), steps AS (
    INSERT INTO nova_steps (run_no, recorded_ms, version, idx, size_bytes, step_id, fingerprint, output_digest, hash, meta, body)
    SELECT b.run_no, s.*
    FROM back AS b, unnest(
        %(recorded_ms)s::bigint[], %(version)s::bigint[], %(idx)s::integer[], %(size_bytes)s::integer[],
        %(step_id)s::text[], %(fingerprint)s::text[], %(output_digest)b::bytea[], %(hash)b::bytea[], %(meta)b::bytea[],
        %(body)b::bytea[]) AS s
)
SELECT run_no FROM back
