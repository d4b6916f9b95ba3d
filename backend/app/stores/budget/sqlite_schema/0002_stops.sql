-- Emergency stops: while a tenant has a row here, no hold of it is granted. tenant_id '' stops all tenants (no name is
-- empty); reserve does not look at that one, whoever makes calls asks for it.

CREATE TABLE budget_stops (
    tenant_id TEXT    NOT NULL PRIMARY KEY,
    since_ms  INTEGER NOT NULL,
    reason    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
