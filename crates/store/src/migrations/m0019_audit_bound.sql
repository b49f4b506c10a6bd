CREATE INDEX audit_refused ON audit (organization_id, id) WHERE outcome = 'refused'
