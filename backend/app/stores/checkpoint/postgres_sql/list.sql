-- Reads a page of runs, latest update first, by number where it is the same.
--
-- tenant_id; from_ms, to_ms: of the update, from inclusive, to exclusive.
-- after_ms, after_no: the last run of the page before.  count: of runs, one more than the page has.
-- page_bytes: the page ends behind the run whose inputs and result pass this.
-- Where a list is filtered, `AND workflow = ...` and `AND status = ...` stand in place of {where}.
--
-- Rows (run_no, the head in the order of StoredHead, inputs, result, how many runs there are in all, at most count).
-- The minutes are conditions and order of their own because they are what the indexes have.
SELECT r.run_no, {head}, i.body, o.body, r.candidates
FROM (
    SELECT p.*,
           count(*) OVER () AS candidates,
           coalesce(sum(p.bytes) OVER (ORDER BY p.updated_minute DESC, p.updated_ms DESC, p.run_no DESC
                                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
    FROM (
        SELECT n.*,
               coalesce((SELECT sum(octet_length(v.body)) FROM nova_values AS v WHERE v.run_no = n.run_no), 0) AS bytes
        FROM nova_runs AS n
        WHERE n.tenant_id = %(tenant_id)s
          AND n.updated_minute BETWEEN %(from_ms)s::bigint / 60000 AND least(%(to_ms)s::bigint, %(after_ms)s::bigint) / 60000
          AND n.updated_ms >= %(from_ms)s::bigint AND n.updated_ms < %(to_ms)s::bigint
          AND (n.updated_ms, n.run_no) < (%(after_ms)s::bigint, %(after_no)s::bigint)
          {where}
        ORDER BY n.updated_minute DESC, n.updated_ms DESC, n.run_no DESC
        LIMIT %(count)s::bigint
    ) AS p
) AS r
LEFT JOIN nova_values AS i ON i.run_no = r.run_no AND i.kind = 'inputs'
LEFT JOIN nova_values AS o ON o.run_no = r.run_no AND o.kind = 'result'
WHERE r.bytes_before <= %(page_bytes)s::bigint
ORDER BY r.updated_minute DESC, r.updated_ms DESC, r.run_no DESC
