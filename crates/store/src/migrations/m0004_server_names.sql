CREATE INDEX servers_organization_name ON servers (organization_id, name);
