ALTER TABLE servers ADD COLUMN restart_at TEXT;
ALTER TABLE servers ADD COLUMN next_restart_at BIGINT;
ALTER TABLE servers ADD COLUMN update_window TEXT;
CREATE INDEX servers_next_restart ON servers (next_restart_at);
