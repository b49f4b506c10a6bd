CREATE TABLE revision_credentials (organization_id TEXT NOT NULL, revision_id TEXT NOT NULL REFERENCES revisions (id) ON DELETE CASCADE, credential_id TEXT NOT NULL, PRIMARY KEY (revision_id, credential_id));
CREATE INDEX revision_credentials_credential ON revision_credentials (organization_id, credential_id);
