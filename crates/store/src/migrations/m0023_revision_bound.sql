CREATE INDEX instances_revision ON instances (revision_id)
