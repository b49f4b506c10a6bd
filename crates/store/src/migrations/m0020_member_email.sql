ALTER TABLE memberships ADD COLUMN email TEXT;
UPDATE memberships SET email = (SELECT u.email FROM users u WHERE u.id = memberships.user_id);
CREATE UNIQUE INDEX memberships_email ON memberships (email, organization_id)
