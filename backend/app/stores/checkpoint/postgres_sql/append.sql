-- Records one step, or does nothing; what it takes, gives and does is said at the function (postgres_schema/0003_append.sql).
--
-- One row: 48 bytes, or NULL where it was refused. No casts: the function's parameters have their types.
SELECT nova_append(
    %(tenant_id)s, %(run_id)s, %(step_id)s, %(fingerprint)s, %(digest)b, %(meta)b, %(body)b, %(size_bytes)s, %(token)s,
    %(version)s, %(hash_behind)b, %(now_ms)s
)
