-- Finds where the archive has a run.
--
-- run_no.
--
-- One row (object_key, offset, length, steps, sha256), or none.
SELECT s.object_key, f."offset", f.length, f.steps, f.sha256
FROM nova_archive_frames AS f
JOIN nova_archive_segments AS s ON s.segment_no = f.segment_no
WHERE f.run_no = %(run_no)s::bigint
