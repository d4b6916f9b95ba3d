-- Reads consecutive steps of a run, in the order of recording.
--
-- run_no; first: the index of the first.  count: how many at most.  bodies: whether their outputs are read.
--
-- Rows in the order of StoredStep; the body is empty where it was not asked for.
SELECT idx, step_id, fingerprint, output_digest, hash, version, size_bytes, recorded_ms, meta,
       CASE WHEN %(bodies)s::boolean THEN body ELSE '' END
FROM nova_steps
WHERE run_no = %(run_no)s::bigint AND idx >= %(first)s::integer
ORDER BY idx
LIMIT %(count)s::bigint
