-- Reads the output digest of every step of a run, in the order of recording.
--
-- run_no; count: the head's count of steps. Rows (step_id, output_digest).
SELECT step_id, output_digest
FROM nova_steps
WHERE run_no = %(run_no)s::bigint AND idx < %(count)s::integer
ORDER BY idx
