-- Finds a run: its head, the database's time, and the bodies of its inputs and its result.
--
-- tenant_id, run_id.
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- One row (run_no, the head in the order of StoredHead, now_ms, inputs, result), or none.
SELECT r.run_no, {head},
       coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
       i.body, o.body
FROM nova_runs AS r
LEFT JOIN nova_values AS i ON i.run_no = r.run_no AND i.kind = 'inputs'
LEFT JOIN nova_values AS o ON o.run_no = r.run_no AND o.kind = 'result'
WHERE r.tenant_id = %(tenant_id)s AND r.run_id = %(run_id)s
