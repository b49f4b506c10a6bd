ALTER TABLE servers ADD COLUMN rollout_id TEXT;
ALTER TABLE servers ADD COLUMN serving_rollout_id TEXT;
ALTER TABLE instances ADD COLUMN rollout_id TEXT NOT NULL DEFAULT '';
CREATE INDEX instances_rollout ON instances (rollout_id);
CREATE INDEX instances_ended ON instances (ended_at);
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX servers_deleted ON servers (deleted, id);
CREATE TABLE remote_probes (revision_id TEXT PRIMARY KEY REFERENCES revisions (id) ON DELETE CASCADE, organization_id TEXT NOT NULL REFERENCES organizations (id), server_id TEXT NOT NULL, phase TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, since BIGINT NOT NULL, checked_at BIGINT NOT NULL, failures INTEGER NOT NULL, mcp TEXT);
CREATE INDEX remote_probes_server ON remote_probes (server_id);
