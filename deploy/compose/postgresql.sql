-- Makes the role authz_server and the database that it owns; run once by a superuser of PostgreSQL, in psql:
--   psql -v password_file=secrets/database-password -f postgresql.sql
-- The role has no right beyond its own database.
\set ON_ERROR_STOP on
\if :{?password_file}
\else
  \set password_file /run/secrets/database-password
\endif
\set password `cat :'password_file'`

-- Keeps the statement with the password out of PostgreSQL's log, also where it logs statements or fails.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';

-- An empty password would make a role that cannot log in.
SELECT CASE WHEN :'password' = '' THEN 'the password file is empty or cannot be read' ELSE 'true' END::boolean AS has_password \gset

CREATE ROLE authz_server LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE authz_server OWNER authz_server ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE authz_server FROM PUBLIC;
