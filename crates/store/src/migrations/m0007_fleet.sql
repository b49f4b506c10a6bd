ALTER TABLE toolboxes ADD COLUMN draining_since BIGINT;
ALTER TABLE toolboxes ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE toolboxes ADD COLUMN enrolment BIGINT NOT NULL DEFAULT 0;
ALTER TABLE toolboxes ADD COLUMN certificate_expires_at BIGINT;
ALTER TABLE toolboxes ADD COLUMN built_in BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE toolboxes SET built_in = TRUE WHERE token_hash IS NULL AND state <> 'removed';
UPDATE toolboxes SET draining_since = since, state = 'unreachable' WHERE state = 'draining';
ALTER TABLE servers ADD COLUMN toolbox_labels TEXT NOT NULL DEFAULT '{}';
CREATE TABLE join_tokens (secret_hash TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), toolbox_id TEXT NOT NULL REFERENCES toolboxes (id), created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, used_at BIGINT, used_key TEXT, used_enrolment BIGINT);
CREATE INDEX join_tokens_toolbox ON join_tokens (toolbox_id);
CREATE INDEX join_tokens_expires ON join_tokens (expires_at);
CREATE TABLE authority (id INTEGER PRIMARY KEY, certificate TEXT NOT NULL, sealed_key {blob} NOT NULL, created_at BIGINT NOT NULL)
