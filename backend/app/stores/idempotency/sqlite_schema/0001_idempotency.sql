-- Idempotency records: one row per key of a tenant. Times are milliseconds since 1970, UTC.
--
-- state           in_progress (somebody owns it), free (abandoned), completed
-- token           of the latest begin; whoever shows another changes nothing
-- holder          the process that owns it, as Holder.encode() writes it
-- lease_until_ms  when an owner that is not heard of any more loses it
-- expires_at_ms   from then on the row counts as absent; begin removes such rows, a few at a time
-- digest          SHA-256 of the result before compression
-- result          one zstd frame; last, so that the columns before it are read without it
CREATE TABLE idempotency_records (
    tenant_id      TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    fingerprint    TEXT    NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('in_progress', 'free', 'completed')),
    token          INTEGER NOT NULL,
    attempt        INTEGER NOT NULL CHECK (attempt > 0),
    holder         TEXT    NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    expires_at_ms  INTEGER NOT NULL,
    digest         BLOB,
    result         BLOB,
    PRIMARY KEY (tenant_id, key),
    CHECK ((state = 'completed') = (result IS NOT NULL)),
    CHECK ((digest IS NULL) = (result IS NULL))
);

CREATE INDEX idempotency_records_by_expiry ON idempotency_records (expires_at_ms);

-- The last token of the file, one row. It is not part of the records because it outlives every one of them.
CREATE TABLE idempotency_tokens (last INTEGER NOT NULL);

INSERT INTO idempotency_tokens (last) VALUES (0);
