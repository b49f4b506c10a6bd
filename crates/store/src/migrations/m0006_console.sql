CREATE TABLE session_keys (id TEXT PRIMARY KEY, session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, organization_id TEXT NOT NULL REFERENCES organizations (id), hash TEXT NOT NULL UNIQUE, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL);
CREATE INDEX session_keys_session ON session_keys (session_id, id);
CREATE INDEX session_keys_expires ON session_keys (expires_at);
ALTER TABLE users ADD COLUMN password_generated BOOLEAN NOT NULL DEFAULT FALSE;
CREATE TABLE console_reports (id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), received_at BIGINT NOT NULL, at BIGINT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, value DOUBLE PRECISION, route TEXT NOT NULL, message TEXT NOT NULL, stack TEXT NOT NULL, build TEXT NOT NULL, member TEXT, user_agent TEXT NOT NULL);
CREATE INDEX console_reports_organization ON console_reports (organization_id, id);
CREATE INDEX console_reports_received ON console_reports (received_at);
CREATE INDEX audit_target ON audit (organization_id, target, id);
