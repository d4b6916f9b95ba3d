-- Records one step: moves the head and adds the row, or does nothing.
--
-- tenant_id, run_id, step_id, fingerprint; digest: of the output; meta, body: as codec.py writes them; size_bytes: of the output.
-- token: NULL for a writer without a lease.  version: the expected one, NULL if it is not checked.
-- hash_front, hash_back: what stands before and behind the parent's hash in the bytes that a step's hash is of (chain.py).
-- now_ms: the time in ms since 1970, NULL takes the database's.
--
-- One row (version, next_step_index, hash): recorded. No row: refused; the head tells why (rules.appended).
-- Atomic: one statement. A writer that waited for another sees the moved head, and its conditions are asked again. Two
-- that wait with the same step meet at the unique key of nova_steps: the second is undone as a whole.
WITH moved AS (
    UPDATE nova_runs AS r
    SET version = r.version + 1,
        next_step_index = r.next_step_index + 1,
        updated_ms = coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
        head_hash = sha256(%(hash_front)b::bytea || r.head_hash || %(hash_back)b::bytea),
        crashes = 0,
        lease_holder = CASE WHEN %(token)s::bigint IS NOT NULL THEN r.lease_holder END,
        lease_expires_ms = CASE WHEN %(token)s::bigint IS NOT NULL THEN r.lease_expires_ms END
    WHERE r.tenant_id = %(tenant_id)s AND r.run_id = %(run_id)s
      AND r.status IN ('running', 'waiting')
      AND CASE
          WHEN %(token)s::bigint IS NOT NULL THEN r.lease_token = %(token)s::bigint AND r.lease_holder IS NOT NULL
          ELSE r.lease_expires_ms IS NULL OR r.lease_expires_ms
               <= coalesce(%(now_ms)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
          END
      AND (%(version)s::bigint IS NULL OR r.version = %(version)s::bigint)
      AND (SELECT s.idx FROM nova_steps AS s WHERE s.run_no = r.run_no AND s.step_id = %(step_id)s) IS NULL
    RETURNING r.run_no, r.updated_ms, r.version, r.next_step_index, r.head_hash
), added AS (
    INSERT INTO nova_steps (run_no, recorded_ms, version, idx, size_bytes, step_id, fingerprint, output_digest, hash, meta, body)
    SELECT run_no, updated_ms, version, next_step_index - 1, %(size_bytes)s::integer, %(step_id)s, %(fingerprint)s,
           %(digest)b::bytea, head_hash, %(meta)b::bytea, %(body)b::bytea
    FROM moved
)
SELECT version, next_step_index, head_hash FROM moved
