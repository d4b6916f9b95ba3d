-- How many holders of a run in a row ended without recording a step and without giving their lease up: after some of
-- them it is not resumed by itself any more. And the index of what claim_any looks through: by the tenant alone, because a
-- column that each step changes would cost each step a page more in the log.
ALTER TABLE checkpoint_runs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX checkpoint_runs_running ON checkpoint_runs (tenant_id) WHERE status = 'running';
