"""``audit`` and ``report`` at the command line: search, export, verify, who could do what."""

import codecs
import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from authz_server.app import EXTENSION, create_app
from authz_server.audit.chain import NO_HASH, hash_line
from authz_server.audit.events import ServerStarted, ServerStopped
from authz_server.audit.models import AuditBlock, AuditRecord, AuditWriter
from authz_server.clients.models import Client
from authz_server.settings import load_settings

TOKEN = "/oauth2/token"


class Site:
    """The command line, and two applications in this process that share the file of records."""

    def __init__(self, cli, directory):
        self.cli, self.path = cli, directory / "audit.jsonl"
        settings = load_settings(cli.config)
        self.apps = [create_app(settings), create_app(settings)]
        self.services = [app.extensions[EXTENSION] for app in self.apps]
        self.secrets = {}

    def new_client(self, name, *scopes):
        options = [each for scope in scopes for each in ("--scope", scope)]
        made = self.cli.json("client", "create", name, "--name", f"={name}", *options)
        self.secrets[name] = made["secret"]
        for each in self.services:
            each.feed.poll()

    def ask(self, client, scope, app=0):
        form = {"client_id": client, "client_secret": self.secrets[client], "scope": scope}
        answer = (
            self.apps[app]
            .test_client()
            .post(TOKEN, data={"grant_type": "client_credentials", **form})
        )
        return answer.json.get("access_token")

    def spoil(self):
        """Add a line that no reader can read to the end: its object is nested without an end."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self.path.open("a") as file:
            file.write(f'{{"time":"{now}","event":"token.issued","act":{"[" * 100_000}\n')

    def checkpoint(self):
        for each in self.services:
            each.audit_checkpoints.seal_audit_records()
            each.audit_checkpoints.write_audit_checkpoint()

    def close(self):
        for each in self.services:
            each.maintenance.stop()
            each.database.close()
            each.sink.close()


@pytest.fixture
def site(cli, prepare, tmp_path):
    server = ("--name", "M", "--scope", "mapper/*", "--identifier", "https://mapper.example")
    prepare(
        cli,
        ("scope", "import", "g2p-connect"),
        ("keys", "init"),
        ("resource-server", "create", "mapper", *server),
    )
    site = Site(cli, tmp_path)
    yield site
    site.close()


def test_a_whole_trail_is_intact_and_each_place_of_tampering_is_named(site, tmp_path):
    """Files of two processes and of commands, rotated and compressed, and the stored records."""
    cli = site.cli
    site.new_client("ministry", "mapper/link")
    for app in (0, 1):
        assert site.ask("ministry", "mapper/link", app)
    site.services[0].notify(ServerStarted(version="1", issuer="i", process_id=1))
    site.checkpoint()
    # The heads of commands stand in a checkpoint, too.
    result = cli.json("audit", "verify")
    assert result["intact"]
    assert result["findings"] == []
    assert result["stored"]["unsealed"] == 0
    assert result["lines"]["signed_until"]
    assert result["checkpoints"] > 0
    old = site.path.rename(tmp_path / "audit.jsonl.1")
    (tmp_path / "audit.jsonl.2.gz").write_bytes(gzip.compress(old.read_bytes()[:0]))
    for each in site.services:
        each.sink._next_check = 0.0  # noqa: SLF001 - a second has passed
    site.ask("ministry", "mapper/link", 0)
    site.ask("ministry", "mapper/unlink", 1)
    site.checkpoint()
    assert "intact" in cli.must("audit", "verify")
    whole = site.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    # The tail is cut off: only the database knows.
    site.path.write_bytes(b"".join(lines[:-1]))
    result = cli.run("audit", "verify")
    assert result.exit_code == 1
    assert f"ALARM cut off: {site.path}, line" in result.stdout
    site.path.write_bytes(whole.replace(b'"mapper/link"', b'"mapper/else"', 1))
    changed = cli.run("audit", "verify", "--json")
    assert json.loads(changed.stdout)["findings"][0]["fault"] == "changed"
    site.path.write_bytes(whole)
    assert cli.run("audit", "verify").exit_code == 0
    with site.services[0].database.transaction() as session:
        row = AuditRecord.subject == "ministry"
        session.execute(update(AuditRecord).where(row).values(actor="operator:else"))
    assert "ALARM changed: record" in cli.run("audit", "verify").stdout


def forge(site, event):
    """Remove the first record of an event, and rebuild the rest of its writer's chain, unsigned."""
    lines = [line for line in site.path.read_bytes().splitlines() if line]
    first = next(line for line in lines if json.loads(line)["event"] == event)
    writer = json.loads(first)["chain"]["writer"]
    kept, sequence, digest = [], 0, NO_HASH
    for line in lines:
        record = json.loads(line)
        if record["chain"]["writer"] != writer:
            kept.append(line)
        elif line != first and record["event"] != "audit.checkpoint":
            sequence += 1
            record["chain"] |= {"sequence": sequence, "previous": digest}
            kept.append(json.dumps(record).encode())
            digest = hash_line(kept[-1])
    site.path.write_bytes(b"".join(line + b"\n" for line in kept))
    with site.services[0].database.transaction() as session:
        row = update(AuditWriter).where(AuditWriter.writer == writer)
        session.execute(row.values(sequence=sequence, hash=digest))


@pytest.mark.parametrize("signed", ["writer", "block"])
def test_a_forged_end_of_a_file_is_told_by_the_heads_that_the_database_has_signed(site, signed):
    """Whoever writes the file and the table, and has no key, can sign no other head."""
    site.new_client("ministry", "mapper/link")
    for _ in range(3):
        site.ask("ministry", "mapper/link")
    site.services[0].notify(ServerStarted(version="1", issuer="i", process_id=1))
    site.checkpoint()
    assert site.cli.json("audit", "verify")["intact"]
    forge(site, "token.issued")
    table, column = (AuditWriter, "checkpoint") if signed == "block" else (AuditBlock, "signature")
    with site.services[0].database.transaction() as session:
        session.execute(update(table).values({column: None}))
    found = json.loads(site.cli.run("audit", "verify", "--json").stdout)["findings"]
    assert found[0]["fault"] in {"changed", "cut off"}
    source = "the checkpoint of block" if signed == "block" else "the checkpoint of the writer"
    assert source in found[0]["detail"]


def test_files_are_verified_with_a_key_set_and_without_the_database(site, tmp_path):
    site.new_client("ministry", "mapper/link")
    site.ask("ministry", "mapper/link")
    site.checkpoint()
    jwks = tmp_path / "jwks.json"
    jwks.write_bytes(site.services[0].key_rings.jwks())
    cli = type(site.cli)(tmp_path / "nothing.toml", "")
    arguments = ("audit", "verify", site.path, "--jwks", jwks)
    assert cli.json(*arguments)["stored"] is None
    jwks.write_bytes(codecs.BOM_UTF8 + jwks.read_bytes())
    cli.must(*arguments)
    other = json.loads(site.services[0].key_rings.jwks())
    other["keys"][0]["x"] = other["keys"][0]["y"]
    jwks.write_text(json.dumps(other))
    result = cli.run(*arguments, "--json")
    assert json.loads(result.stdout)["unknown_keys"] > 0
    for unreadable in ("[]", '{"keys":' + "[" * 100_000, '{"keys": [], "keys": []}'):
        jwks.write_text(unreadable)
        assert "not a JWK set" in cli.run(*arguments).stderr
    assert "FILES" in cli.refused("audit", "verify", "--jwks", jwks)


def test_the_close_of_a_process_is_signed(site):
    site.new_client("ministry", "mapper/link")
    site.ask("ministry", "mapper/link")
    services = site.services[0]
    services.notify(ServerStopped(process_id=1))
    services.audit_checkpoints.close_audit_chain()
    assert json.loads(site.path.read_bytes().splitlines()[-1])["event"] == "audit.checkpoint"
    assert site.cli.json("audit", "verify")["lines"]["unsigned"] <= 1


def test_a_search_has_changes_tokens_and_refusals_once(site):
    """The newest come first, each change once, though it is stored and in the file."""
    cli = site.cli
    site.new_client("ministry", "mapper/link")
    site.new_client("erp", "mapper/unlink")
    site.ask("ministry", "mapper/link")
    site.ask("ministry", "mapper/resolve")
    site.spoil()
    found = cli.json("audit", "search", "--client", "ministry")["records"]
    events = [each["event"] for each in found]
    assert events[:2] == ["token.refused", "token.issued"]
    assert events.count("client.created") == 1
    assert {each["subject"] for each in found if each["event"].startswith("client.")} == {
        "ministry"
    }

    def events_of(*filters):
        return [each["event"] for each in cli.json("audit", "search", *filters)["records"]]

    assert set(events_of("--event", "token.")) == {"token.refused", "token.issued"}
    assert events_of("--scope", "mapper.link", "--event", "token.issued") == ["token.issued"]
    assert "client.created" in events_of("--scope", "mapper")
    assert events_of("--until", "-1h") == []
    assert len(events_of("--since", "-1h", "--limit", "1")) == 1
    kid = json.loads(site.services[0].key_rings.jwks())["keys"][0]["kid"]
    assert "token.issued" in events_of("--key", kid)
    assert events_of("--by", "operator:nobody") == []
    text = cli.run("audit", "search", "--client", "ministry")
    assert "token.refused" in text.stdout
    assert "records." in text.stderr
    assert "1 record." in cli.run("audit", "search", "--limit", "1").stderr


def test_a_search_has_a_change_of_an_operator_once(site):
    """Of the stored records and those of the file, which has it too."""
    cli = site.cli
    cli.must("operator", "create", "ada")
    found = cli.json("audit", "search", "--event", "operator.")["records"]
    assert [each["event"] for each in found] == ["operator.created"]


def test_an_export_is_safe_for_spreadsheets(site, tmp_path):
    site.new_client("ministry", "mapper/link")
    target = tmp_path / "records.csv"
    site.cli.must("--actor", "=cmd|' /C calc'!A0", "client", "disable", "ministry")
    site.cli.must("audit", "export", "--client", "ministry", "--output", target)
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert {each["event"] for each in rows} >= {"client.created", "client.disabled"}
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "@"))]
    assert target.stat().st_mode & 0o777 == 0o600
    assert "exists" in site.cli.run("audit", "export", "--output", target).stderr
    lines = site.cli.must("audit", "export", "--format", "jsonl").splitlines()
    assert {"time", "event", "actor", "subject", "source", "detail"} == json.loads(lines[0]).keys()


def test_who_could_and_who_did(site):
    """The past is reconstructed: of what changed since, what was there at the time counts."""
    site.new_client("ministry", "mapper/link")
    site.new_client("erp", "mapper/unlink")
    site.new_client("gone", "mapper/link")
    site.ask("ministry", "mapper/link")
    site.spoil()
    at = datetime.now(UTC).isoformat()
    cli = site.cli
    cli.must("client", "update", "ministry", "--scope", "mapper/unlink")
    cli.must("client", "update", "erp", "--scope", "mapper/link")
    cli.must("client", "delete", "gone", "--yes")
    site.new_client("later", "mapper/link")
    found = cli.json("audit", "who", "--scope", "mapper/link", "--at", at)
    assert [each["client_id"] for each in found["could"]] == ["gone", "ministry"]
    assert [(each["client_id"], each["tokens"]) for each in found["held"]] == [("ministry", 1)]
    assert found["unknown"] == []
    now = cli.json("audit", "who", "--scope", "mapper/link", "--at", "now")
    assert [each["client_id"] for each in now["could"]] == ["erp", "later"]
    cli.must("stop", "client", "erp", "--reason", "test", "--yes")
    stopped = cli.json("audit", "who", "--scope", "mapper", "--at", "now")
    assert [each["client_id"] for each in stopped["could"]] == ["later", "ministry"]
    cli.must("client", "disable", "later")
    text = cli.must("audit", "who", "--scope", "mapper/link", "--at", "now")
    assert "Clients that could: 0" in text
    assert "Clients that had a token: 1" in text
    assert cli.json("audit", "who", "--scope", "mapper/link", "--at", at)["could"] == found["could"]


def test_a_scope_that_the_catalogue_does_not_have_is_named(site):
    """The answer that no client could has the same number for a misspelled scope."""
    note = "NOTE the catalogue does not have this scope"
    for scope, known in (("mapper/link", True), ("mapper", True), ("maper/link", False)):
        question = ("audit", "who", "--scope", scope, "--at", "now")
        assert (note in site.cli.must(*question)) is not known
        assert site.cli.json(*question)["known"] is known


def test_reports_name_what_is_not_used_and_what_has_no_owner(site):
    cli, services = site.cli, site.services[0]
    site.new_client("ministry", "mapper/link", "mapper/unlink", "disburse/disburse")
    site.new_client("idle", "mapper/link")
    token = site.ask("ministry", "mapper/link")
    services.maintenance.store_scope_uses()
    past = datetime.now(UTC) - timedelta(days=200)
    with services.database.transaction() as session:
        session.execute(update(Client).values(created_at=past))
    found = cli.json("report", "least-privilege")
    unused = {each["client_id"]: each for each in found["unused_scopes"]}
    assert "mapper/unlink" in unused["ministry"]["never_asked"]
    assert unused["ministry"]["never_seen"] == ["mapper/link"]
    assert [each["client_id"] for each in found["dormant_clients"]] == ["idle"]
    assert "idle" in cli.must("report", "least-privilege")
    secret = cli.json("resource-server", "secret", "add", "mapper")["secret"]
    services.feed.poll()
    answer = (
        site.apps[0]
        .test_client()
        .post(
            "/oauth2/introspect",
            data={"token": token, "client_id": "mapper", "client_secret": secret},
        )
    )
    assert answer.json["active"]
    services.maintenance.store_scope_uses()
    (unused,) = (
        each
        for each in cli.json("report", "least-privilege")["unused_scopes"]
        if each["client_id"] == "ministry"
    )
    assert unused["never_seen"] == []
    owners = cli.json("report", "owners")
    assert owners["scopes_without_server"]["disburse/disburse"] == ["ministry"]
    assert "Scopes without a resource server" in cli.must("report", "owners")
