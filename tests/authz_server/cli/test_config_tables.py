"""``config check``, ``serve`` and ``db check`` refuse a schema that lacks a part."""

import re
import secrets

import psycopg
import pytest
from sqlalchemy import create_engine, text

from support.settings_file import write_settings_beside

URL_USER = re.compile(r"//[^@]*@")


@pytest.fixture
def ready(cli):
    """The command line on a database with keys."""
    cli.must("keys", "init")
    return cli


def both_refuse(cli, *named):
    """Assert that the check and the server refuse, with these words and by their own accord."""
    for command in (("config", "check"), ("serve",)):
        refusal = cli.refused(*command)
        for word in named:
            assert word in refusal
        assert "unexpected" not in refusal


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER TABLE client RENAME COLUMN name TO former_name", "client"),
        ("ALTER TABLE revoked_token RENAME TO former_table", "revoked_token"),
        ("DROP TABLE audit_block", "audit_block"),
    ],
)
def test_a_schema_that_lacks_a_table_or_a_column_is_refused(ready, change, named):
    """Case R241. A copy may be restored in part, and have the revision of this release."""
    engine = create_engine(ready.database_url)
    with engine.begin() as connection:
        connection.execute(text(change))
    engine.dispose()
    both_refuse(ready, f"The table {named} of the database", "cannot be read")
    assert f"The table {named} of " in ready.run("db", "check").stderr


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_table_that_the_role_may_not_read_is_refused(ready):
    """Case R241. Tables that another role made in an upgrade have no grants for the server's."""
    role = f"server_{secrets.token_hex(6)}"
    with psycopg.connect(ready.database_url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'server'")
        granted = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
        owner.execute(f"GRANT {granted} TO {role}")
        owner.execute(f"REVOKE SELECT ON stop {'FROM'} {role}")
        url = URL_USER.sub(f"//{role}:server@", ready.database_url)
        ready.config = write_settings_beside(ready.config.parent, "server", url, {})
        both_refuse(ready, "The table stop of", "permission denied", "grant the server's role")
        owner.execute(f"GRANT {granted} TO {role}")
        assert "cannot be read" not in ready.run("config", "check").stderr
        owner.execute(f"DROP OWNED BY {role}")
        owner.execute(f"DROP ROLE {role}")
