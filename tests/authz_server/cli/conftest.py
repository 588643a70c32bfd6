import json

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, select

from authz_server.audit.models import AuditRecord
from authz_server.cli.root import main
from support.settings_file import write_settings, write_shared_secrets
from support.vault_installation import VaultInstallation

_CATALOGUE = ("scope", "import", "g2p-connect")
_KEYS = ("keys", "init")
_MAPPER = (
    *("resource-server", "create", "mapper", "--name", "Mapper", "--scope", "mapper/*"),
    *("--identifier", "https://mapper.example"),
)
_MINISTRY = ("client", "create", "ministry", "--name", "Ministry", "--scope", "mapper/link")


class Cli:
    """The command line in this process, on one settings file."""

    def __init__(self, config, database_url):
        self.config, self.database_url = config, database_url

    def run(self, *arguments, input=None):  # noqa: A002 - the name that click gives it
        """Run a command; its result, with stdout, stderr and exit_code."""
        arguments = [str(each) for each in ("--config", self.config, *arguments)]
        return CliRunner().invoke(main, arguments, input=input)

    def must(self, *arguments, input=None):  # noqa: A002 - likewise
        """Run a command that has to succeed; what it printed."""
        result = self.run(*arguments, input=input)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments, input=None):  # noqa: A002 - likewise
        """Run a command that has to succeed, with --json; what it printed, parsed."""
        return json.loads(self.must(*arguments, "--json", input=input))

    def refused(self, *arguments, input=None):  # noqa: A002 - likewise
        """Run a command that has to fail; its sentence, which is no traceback."""
        result = self.run(*arguments, input=input)
        assert result.exit_code != 0, result.output
        assert "Traceback" not in result.output
        assert result.stdout == ""
        return result.stderr

    def warnings(self, *options):
        """Return what `config check` warns of, but for ports that another program may hold."""
        found = self.json("config", "check", *options)["warnings"]
        return [each for each in found if each["key"] not in {"server.host", "server.health_host"}]

    def audit_records(self):
        """Return (actor, action, subject) of every stored record."""
        engine = create_engine(self.database_url)
        columns = (AuditRecord.actor, AuditRecord.action, AuditRecord.subject)
        with engine.connect() as connection:
            rows = connection.execute(select(*columns).order_by(AuditRecord.id)).all()
        engine.dispose()
        return [tuple(row) for row in rows]


def _make_cli(folder, database_url, **overrides):
    """Write a settings file into a folder; return the command line on it."""
    write_shared_secrets(folder)
    return Cli(write_settings(folder, database_url, overrides), database_url)


@pytest.fixture(scope="session")
def make_cli():
    """A function of a folder, a database and settings that returns the command line on them."""
    return _make_cli


@pytest.fixture
def cli(database_url, tmp_path):
    """The command line on a migrated database without keys or scopes."""
    return _make_cli(tmp_path, database_url)


@pytest.fixture(scope="session")
def prepare(fill_database):
    """A function of `cli` and of commands that prepare its unused database; returns their output.

    They run once for each dialect; afterwards, rows and audit records are copied.
    """

    def prepare(cli, *commands):
        def fill(url, folder):
            made = _make_cli(folder, url)
            outputs = [made.must(*command) for command in commands]
            return outputs, made.config.with_name("audit.jsonl").read_text()

        outputs, records = fill_database(cli.database_url, f"commands {commands}", fill)
        cli.config.with_name("audit.jsonl").write_text(records)
        return outputs

    return prepare


@pytest.fixture
def stocked(cli, prepare):
    """As `cli`, with the G2P Connect catalogue."""
    prepare(cli, _CATALOGUE)
    return cli


@pytest.fixture
def registered(cli, prepare):
    """As `stocked` and `keyed`, with the resource server `mapper` and the client `ministry`."""
    prepare(cli, _CATALOGUE, _KEYS, _MAPPER, _MINISTRY)
    return cli


@pytest.fixture
def keyed(cli, prepare):
    """As `cli`, with the ring es256: version 1 signs, version 2 stands by."""
    prepare(cli, _KEYS)
    return cli


@pytest.fixture(scope="module")
def shared_cli(module_database_url, prepare, tmp_path_factory):
    """As `stocked`, for all tests of a file that change nothing."""
    cli = _make_cli(tmp_path_factory.mktemp("cli"), module_database_url)
    prepare(cli, _CATALOGUE)
    return cli


@pytest.fixture
def installation(cli, bao_mount, tmp_path, monkeypatch):
    """The command line on a ring in transit, driven by a rotator; its first keys are made."""
    made = VaultInstallation(bao_mount.server.address, bao_mount.admin, bao_mount.mount, tmp_path)
    cli.config = made.settings(cli.database_url)
    monkeypatch.setenv("VAULT_TOKEN", bao_mount.server.token)
    cli.must("keys", "init")
    monkeypatch.delenv("VAULT_TOKEN")
    return made
