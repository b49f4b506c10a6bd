ALTER TABLE servers ADD COLUMN has_volumes BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX servers_with_volumes ON servers (toolbox_id) WHERE has_volumes;
