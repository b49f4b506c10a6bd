ALTER TABLE toolboxes ADD COLUMN address TEXT;
