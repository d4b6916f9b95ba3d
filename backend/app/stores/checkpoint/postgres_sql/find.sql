-- Finds a run: its head, the database's time, and what is recorded of one of its steps.
--
-- tenant_id, run_id; step_id: NULL for none.
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- One row (run_no, the head in the order of StoredHead, now_ms, and the step's fingerprint, output_digest, hash and
-- version, NULL where it is not recorded), or none.
SELECT r.run_no, {head},
       coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
       s.fingerprint, s.output_digest, s.hash, s.version
FROM nova_runs AS r
LEFT JOIN nova_steps AS s ON s.run_no = r.run_no AND s.step_id = %(step_id)s
WHERE r.tenant_id = %(tenant_id)s AND r.run_id = %(run_id)s
