CREATE TABLE installation (id INTEGER PRIMARY KEY, installation_id TEXT NOT NULL, created_at BIGINT NOT NULL);
