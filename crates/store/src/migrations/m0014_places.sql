ALTER TABLE toolboxes ADD COLUMN agent_runs TEXT;
ALTER TABLE rollouts ADD COLUMN from_place TEXT;
CREATE INDEX servers_created ON servers (organization_id, created_at, id)
