CREATE TABLE attempts (server_id TEXT NOT NULL, loop TEXT NOT NULL, organization_id TEXT NOT NULL, next_attempt_at BIGINT NOT NULL, PRIMARY KEY (server_id, loop));
CREATE INDEX attempts_due ON attempts (organization_id, next_attempt_at);
