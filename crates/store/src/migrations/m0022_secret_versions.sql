ALTER TABLE instances ADD COLUMN secret_versions TEXT
