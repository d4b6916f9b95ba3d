-- Finds running runs that nobody holds, the one that lies longest first.
--
-- tenant_id; idle_ms: for how long they were not written to.  host: `<host>|`; leases of its processes may be dead.
-- after_ms, after_no: update and number of the run behind which it goes on.  count: how many at most.  Where a workflow is asked for, `AND workflow = ...` stands in place of {where}.
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- Rows (run_no, the head in the order of StoredHead, now_ms). Nothing is locked: who claims compares what was read.
SELECT r.run_no, {head}, clock.now_ms
FROM (SELECT coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now_ms) AS clock,
     nova_runs AS r
WHERE r.tenant_id = %(tenant_id)s AND r.status = 'running'
  AND r.updated_minute <= (clock.now_ms - %(idle_ms)s::bigint) / 60000
  AND r.updated_ms <= clock.now_ms - %(idle_ms)s::bigint
  AND r.updated_minute >= %(after_ms)s::bigint / 60000
  AND (r.updated_ms, r.run_no) > (%(after_ms)s::bigint, %(after_no)s::bigint)
  AND (r.lease_expires_ms IS NULL OR r.lease_expires_ms <= clock.now_ms OR starts_with(r.lease_holder, %(host)s))
  {where}
ORDER BY r.updated_minute, r.updated_ms, r.run_no
LIMIT %(count)s::bigint
