-- Limits, counters, and the entries that explain them: holds and adjustments.
--
-- Amounts are microcents, times are ms since 1970 UTC, lists are JSON. A verb changes the entry and the counters that it
-- belongs to in one transaction, so that at every commit, per counter:
--   spent = base + charged of its holds that are not held + amounts of its adjustments
--   held  = amount of its holds that are held
-- Reserving and closing touch rows by their keys alone; what they cost does not grow with the number of closed holds.

CREATE TABLE budget_limits (
    tenant_id TEXT    NOT NULL,
    scope     TEXT    NOT NULL,
    window    TEXT    NOT NULL CHECK (window IN ('total', 'month', 'day', 'hour')),
    amount    INTEGER NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (tenant_id, scope, window)
) STRICT, WITHOUT ROWID;

-- window_id: total, 2026-11, 2026-11-24 or 2026-11-24T10. base: the part of spent whose entries were folded.
-- remove_ms: 35 days after the end of the window; NULL for total, which stays.
CREATE TABLE budget_counters (
    tenant_id TEXT    NOT NULL,
    scope     TEXT    NOT NULL,
    window_id TEXT    NOT NULL,
    spent     INTEGER NOT NULL,
    held      INTEGER NOT NULL,
    uncertain INTEGER NOT NULL,
    overage   INTEGER NOT NULL,
    base      INTEGER NOT NULL,
    remove_ms INTEGER,
    PRIMARY KEY (tenant_id, scope, window_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX budget_counters_to_remove ON budget_counters (remove_ms) WHERE remove_ms IS NOT NULL;

-- The windows of a hold follow from created_ms; hourly are those of its scopes that had a limit per hour then.
-- A row that says held counts as expired from expires_ms on, whether or not that was written down.
CREATE TABLE budget_holds (
    tenant_id  TEXT    NOT NULL,
    hold_id    TEXT    NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount >= 0),
    scopes     TEXT    NOT NULL,
    hourly     TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('held', 'settled', 'released', 'expired')),
    charged    INTEGER NOT NULL CHECK (charged >= 0),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    closed_ms  INTEGER CHECK ((closed_ms IS NULL) = (state = 'held')),
    detail     TEXT,
    PRIMARY KEY (tenant_id, hold_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX budget_holds_to_expire ON budget_holds (expires_ms) WHERE state = 'held';
CREATE INDEX budget_holds_to_fold ON budget_holds (closed_ms) WHERE closed_ms IS NOT NULL;

-- kind: named has an id that a caller gave and is kept, so that it never counts twice; the others are folded.
-- amounts: [[window_id, amount], …], because a reset takes from each window what that one has.
CREATE TABLE budget_adjustments (
    tenant_id     TEXT    NOT NULL,
    kind          TEXT    NOT NULL CHECK (kind IN ('named', 'cost', 'reset', 'floor')),
    adjustment_id TEXT    NOT NULL,
    scope         TEXT    NOT NULL,
    amount        INTEGER NOT NULL,
    amounts       TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    created_ms    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, kind, adjustment_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX budget_adjustments_to_fold ON budget_adjustments (created_ms) WHERE kind <> 'named';
