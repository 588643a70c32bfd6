"""A database of PostgreSQL without room: noticed by a change, and tried again at intervals."""

from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from authz_server.database.orm import Database
from authz_server.database.room import TRY_SECONDS, RoomCheck
from support.roles import Role, attached

#: What a full disk does: rows, and files in the default tablespace, find no room.
FULL = """
CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE 'no room for rows' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON single_use EXECUTE FUNCTION no_room();
CREATE FUNCTION no_new_file() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM FROM pg_event_trigger_ddl_commands() AS made JOIN pg_class ON pg_class.oid = made.objid
    WHERE reltablespace = 0;
  IF FOUND THEN RAISE 'no room for a file' USING ERRCODE = 'disk_full'; END IF; END $$;
CREATE EVENT TRIGGER no_new_file ON ddl_command_end EXECUTE FUNCTION no_new_file();
"""
FREE = "DROP FUNCTION no_room CASCADE; DROP FUNCTION no_new_file CASCADE;"
TABLE = "CREATE TABLE single_use (digest bytea PRIMARY KEY, expires_at bigint NOT NULL)"
CHANGE = "INSERT INTO single_use VALUES ('\\x00', 1)"


@contextmanager
def superuser(role: Role):
    """Yield a connection of the superuser to the database of a role."""
    address = role.access.url(role.name).replace("+psycopg", "")
    with psycopg.connect(address, autocommit=True) as connection:
        yield connection


def change(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql(CHANGE)


@pytest.fixture
def other_disk(role: Role):
    """A tablespace that has room, in which the role makes its temporary tables."""
    name = sql.Identifier(f"other_{role.name}")
    with superuser(role) as operator:
        operator.execute("SET allow_in_place_tablespaces = on")
        operator.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(name))
        operator.execute(
            sql.SQL("GRANT CREATE ON TABLESPACE {} TO {}").format(name, sql.Identifier(role.name))
        )
    role.set("temp_tablespaces", f"other_{role.name}")
    yield
    with superuser(role) as operator:
        operator.execute(sql.SQL("DROP TABLESPACE {}").format(name))
        operator.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(sql.Identifier(role.name)))


@pytest.mark.usefixtures("other_disk")
@pytest.mark.parametrize("may_make_tables", [True, False])
def test_room_is_tried_where_the_tables_are_at_most_once_in_some_seconds(
    role: Role, may_make_tables
):
    """Case J112."""
    now = [0.0]
    with attached(role.url()) as database, superuser(role) as operator:
        with database.engine.begin() as connection:
            connection.exec_driver_sql(TABLE)
        if not may_make_tables:
            name = sql.Identifier(role.name)
            operator.execute(
                sql.SQL("REVOKE TEMP ON DATABASE {} FROM {}, PUBLIC").format(name, name)
            )
        room = RoomCheck(database.engine, lambda: now[0])
        assert room.find_problem() == ""
        operator.execute(FULL)
        with pytest.raises(DBAPIError, match="no room for rows"):
            change(database)
        assert room.has_failed
        tried = "no room for a file" if may_make_tables else "no room for rows"
        assert tried in room.find_problem()
        operator.execute(FREE)
        now[0] += TRY_SECONDS / 2
        assert tried in room.find_problem()
        now[0] += TRY_SECONDS / 2
        assert room.find_problem() == ""
        assert not room.has_failed
        # Nothing of it stays.
        assert operator.execute("SELECT count(*) FROM single_use").fetchone() == (0,)
