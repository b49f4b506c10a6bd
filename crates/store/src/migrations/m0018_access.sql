ALTER TABLE api_keys ADD COLUMN rotated_at BIGINT;
ALTER TABLE api_keys ADD COLUMN previous_hash TEXT;
ALTER TABLE api_keys ADD COLUMN previous_ends_at BIGINT;
ALTER TABLE sessions ADD COLUMN authenticated_at BIGINT;
CREATE INDEX api_keys_made_by ON api_keys (organization_id, created_by);
CREATE INDEX api_keys_previous_hash ON api_keys (previous_hash)
