ALTER TABLE servers ADD COLUMN postponed TEXT
