"""A command imports, opens and runs what it uses, and nothing else."""

import json
import subprocess
import sys

import click
import pytest

from authz_server.cli.commands import LazyCommands
from authz_server.cli.root import main

#: Libraries that take long to import: for requests, private keys, metrics and migrations.
HEAVY = {"alembic", "cryptography", "flask", "hvac", "jwcrypto", "prometheus_client", "werkzeug"}
#: With those of the main process, from which the first workers are forked.
MODULES_OF_A_SERVER = 960
#: Runs a command; prints the imported modules, and our files in which it ran a function.
OBSERVED = """
import gc, json, sys
from pathlib import Path

entered, importing = set(), 0

def note(frame, event, _argument):
    global importing
    code = frame.f_code
    if code.co_name == "<module>":
        importing += {"call": 1, "return": -1}.get(event, 0)
    elif event == "call" and not importing:
        entered.add(code.co_filename)

from authz_server.cli import main

notes, sys.argv = sys.argv[1] == "files", ["authz-server", *sys.argv[2:]]
# Noting takes longer than the command.
if notes:
    sys.setprofile(note)
try:
    main()
except SystemExit as end:
    if end.code:
        raise
finally:
    sys.setprofile(None)
here = Path(sys.modules["authz_server"].__file__).parents[1]
ours = (f"{here}/authz_server/", f"{here}/keys/")
files = sorted(name for name in entered if name.startswith(ours))
found = {"modules": sorted(sys.modules), "files": files, "frozen": gc.get_freeze_count()}
print("\\n" + json.dumps(found))
"""


def observe(*arguments, cwd, what="modules"):
    """Run a command in a process of its own; what it imported, with "files" what it entered too."""
    command = [sys.executable, "-c", OBSERVED, what, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    return json.loads(done.stdout.splitlines()[-1])


def libraries(observed):
    return {name.partition(".")[0] for name in observed["modules"]}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_click_and_little_else(option, tmp_path):
    observed = observe(option, cwd=tmp_path)
    assert len(observed["modules"]) <= 150
    unused = HEAVY | {"authlib", "msgspec", "pluggy", "psycopg", "rich", "sqlalchemy"}
    assert not libraries(observed) & unused
    assert len([name for name in observed["modules"] if name.startswith("authz_server")]) <= 8


def test_listing_clients_imports_the_tables_and_no_server(stocked, tmp_path):
    observed = observe("--config", stocked.config, "client", "list", cwd=tmp_path)
    assert not libraries(observed) & HEAVY
    assert ("psycopg" in libraries(observed)) == stocked.database_url.startswith("postgresql")
    is_sqlite = stocked.database_url.startswith("sqlite")
    assert ("sqlalchemy.dialects.postgresql" in observed["modules"]) != is_sqlite
    # What is imported is examined neither while it runs nor at its end.
    assert observed["frozen"] > 50_000
    # Nothing is recorded, and no registration is checked.
    unused = {
        "authz_server.audit.records",
        "authz_server.audit.sink",
        "authz_server.clients.validation",
    }
    assert not unused & set(observed["modules"])
    assert len(observed["modules"]) <= (570 if is_sqlite else 670)


def test_listing_keys_imports_no_other_tables(stocked, tmp_path):
    observed = observe("--config", stocked.config, "keys", "list", cwd=tmp_path)
    assert not libraries(observed) & HEAVY
    assert "authz_server.clients.models" not in observed["modules"]
    is_sqlite = stocked.database_url.startswith("sqlite")
    assert len(observed["modules"]) <= (570 if is_sqlite else 670)


@pytest.mark.parametrize(
    ("command", "limit", "further"),
    [
        ("changes list", 540, 100),
        ("audit search", 575, 100),
        ("audit who --scope mapper/link --at -1h", 525, 100),
        # The URL of PostgreSQL is checked with its driver.
        ("config show", 300, 170),
    ],
)
def test_a_command_imports_nothing_of_others_in_its_group(
    stocked, tmp_path, command, limit, further
):
    observed = observe("--config", stocked.config, *command.split(), cwd=tmp_path)
    assert not libraries(observed) & (HEAVY | {"pluggy"})
    is_sqlite = stocked.database_url.startswith("sqlite")
    assert len(observed["modules"]) <= limit + (0 if is_sqlite else further)


def test_a_server_imports_no_migrations_and_no_driver_of_another_database():
    script = "import sys, authz_server.cli.serve; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert not {"alembic", "flask_migrate", "mako", "psycopg", "requests"} & set(modules)
    assert "sqlalchemy.dialects.postgresql" not in modules
    assert len(modules) <= MODULES_OF_A_SERVER


def test_a_new_client_enters_few_files(stocked, tmp_path):
    create = ("client", "create", "--name", "Ministry", "--scope", "mapper/link")
    observed = observe("--config", stocked.config, *create, cwd=tmp_path, what="files")
    # Decision 0023 names them: nine record the change, seven read the settings, six are of the
    # command line, and so on. No authentication method, cache or key is made.
    limit = 43 if stocked.database_url.startswith("sqlite") else 47
    assert len(observed["files"]) <= limit, observed["files"]
    # The classes of grants and methods, whose names a registration may have, import the JOSE
    # libraries.
    assert not libraries(observed) & (HEAVY - {"cryptography", "jwcrypto"})


def lazy_groups(command=main, path=()):
    """Yield each group that imports its commands when they run, with the words that lead to it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        if isinstance(command, LazyCommands):
            yield path, command
        for name in command.list_commands(context):
            yield from lazy_groups(command.get_command(context, name), (*path, name))


def test_a_synopsis_listed_without_an_import_is_that_of_the_command():
    groups = dict(lazy_groups())
    assert () in groups
    for group in groups.values():
        context = click.Context(group)
        for name in group.list_commands(context):
            synopsis = group.get_command(context, name).get_short_help_str(limit=200)
            assert group._lazy_commands[name][1] == synopsis  # noqa: SLF001 - shown by help alone
