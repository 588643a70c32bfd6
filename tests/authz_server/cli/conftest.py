import json

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, select

from authz_server.audit.sink import AuditRecord
from authz_server.cli.root import main
from support.settings_file import write_settings
from support.vault_installation import VaultInstallation


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


@pytest.fixture(scope="session")
def make_cli():
    """A function of a settings file and its database that returns the command line on them."""
    return Cli


@pytest.fixture
def cli(database_url, tmp_path):
    """The command line on a migrated database without keys or scopes."""
    return Cli(write_settings(tmp_path, database_url, {}), database_url)


def _import_g2p_connect(url, folder):
    Cli(write_settings(folder, url, {}), url).must("scope", "import", "g2p-connect")


@pytest.fixture
def stocked(cli, fill_database):
    """As `cli`, with the G2P Connect catalogue."""
    fill_database(cli.database_url, _import_g2p_connect)
    return cli


@pytest.fixture(scope="module")
def shared_cli(module_database_url, fill_database, tmp_path_factory):
    """As `stocked`, for all tests of a file that change nothing."""
    fill_database(module_database_url, _import_g2p_connect)
    config = write_settings(tmp_path_factory.mktemp("cli"), module_database_url, {})
    return Cli(config, module_database_url)


@pytest.fixture
def installation(cli, bao_mount, tmp_path, monkeypatch):
    """The command line on a ring in transit, driven by a rotator; its first keys are made."""
    made = VaultInstallation(bao_mount.server.address, bao_mount.admin, bao_mount.mount, tmp_path)
    cli.config = made.settings(cli.database_url)
    monkeypatch.setenv("VAULT_TOKEN", bao_mount.server.token)
    cli.must("keys", "init")
    monkeypatch.delenv("VAULT_TOKEN")
    return made
