"""The way to a server: credentials, refusals, changes that wait, and answers that get lost."""

import json
import time

import click
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz_server.assembly.operator import operator_services
from authz_server.cli.invocation import Invocation
from authz_server.cli.remote import api
from authz_server.cli.remote.waiting import WaitsForApproval
from authz_server.operations.clients import create_client
from authz_server.settings import load_settings
from keys.jose.jwk import public_jwk
from support.openbao_authority import CertificateAuthority
from support.parties import ACTOR
from support.ports import release_port, reserve_port
from support.remote_site import ALL_SCOPES, leaves, losing_an_answer
from support.scripted_server import ScriptedServer, answer_with

KEYS = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65_537, 2_048),
}


def add_client(site, name: str, scopes=ALL_SCOPES, **fields) -> str:
    """Register a client beside the server, which knows it within a second; return its secret."""
    with operator_services(load_settings(site.config)) as services:
        made = create_client(
            services, actor=ACTOR, id=name, name=name, allowed_scopes=scopes, **fields
        )
    time.sleep(1.0)
    return made.secret.value if made.secret else ""


def ask_as(site, client: str, *credentials: object, command=("client", "list", "--count")):
    options = ("--client-id", client, "--issuer", site.server.base_url, *credentials)
    return site.remote(*options, *command, token="")


def issued_to(site, client: str) -> list[dict]:
    """Return the records of the tokens that a client obtained."""
    lines = map(json.loads, (site.folder / "audit.jsonl").read_text().splitlines())
    return [
        each for each in lines if each["event"] == "token.issued" and each["client_id"] == client
    ]


def require_refusal(result, text: str, status: int = 1) -> None:
    """Check that a command ended with one sentence."""
    assert (result.exit_code, result.stdout) == (status, ""), result.output
    assert isinstance(result.exception, SystemExit)
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()[-1:]) == 1
    assert status == 2 or result.stderr.count("\n") == 1


def test_a_client_with_a_secret_obtains_a_token_for_what_the_command_does(site, tmp_path):
    """The server demands a nonce in each proof, at the token endpoint and at the API."""
    secret = tmp_path / "secret"
    secret.write_text(f"{add_client(site, 'by-secret')}\n")
    assert ask_as(site, "by-secret", "--client-secret-file", secret).exit_code == 0
    (record,) = issued_to(site, "by-secret")
    assert record["scope"] == "clients:read"
    add_client(site, "useless", ("mapper/link",))
    delete = ("client", "delete", "useless", "--yes")
    deleted = ask_as(site, "by-secret", "--client-secret-file", secret, command=delete)
    assert deleted.exit_code == 0, deleted.output
    scopes = [each["scope"] for each in issued_to(site, "by-secret")[1:]]
    assert scopes == ["clients:read", "clients:read clients:write"]
    delete = ("client", "delete", "by-secret", "--yes")
    refused = ask_as(site, "by-secret", "--client-secret-file", secret, command=delete)
    require_refusal(refused, "The client has scopes that the caller does not have")
    options = ("--client-secret-file", secret, "--scope", " ".join(ALL_SCOPES))
    assert ask_as(site, "by-secret", *options, command=delete).exit_code == 0


def test_a_client_that_must_prove_its_key_does(site, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(add_client(site, "bound", properties={"dpop_bound_access_tokens": True}))
    assert ask_as(site, "bound", "--client-secret-file", secret).exit_code == 0


@pytest.mark.parametrize("kind", KEYS)
def test_a_client_authenticates_by_its_key(site, tmp_path, kind):
    key = KEYS[kind]()
    file = tmp_path / "key.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    add_client(
        site,
        f"by-{kind}",
        authentication_method="private_key_jwt",
        properties={"jwks": {"keys": [public_jwk(key)]}},
    )
    result = ask_as(site, f"by-{kind}", "--private-key-file", file)
    assert result.exit_code == 0, result.output


def test_a_token_comes_from_the_environment_a_file_or_standard_input(site, tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{site.token()}\n")
    command = ("client", "list", "--count")
    count = site.local(*command).stdout
    for result in (
        site.remote(*command),
        site.remote("--token-file", file, *command, token=""),
        site.remote(*command, token="", AUTHZ_SERVER_TOKEN_FILE=str(file)),
        site.remote("--token-file", "-", *command, token="", input=site.token()),
    ):
        assert (result.exit_code, result.stdout) == (0, count), result.output


def test_options_that_name_no_credentials_are_refused(site, tmp_path):
    """Two ways are refused as none is."""
    file = tmp_path / "file"
    file.write_text("x")
    command = ("client", "list")
    client = ("--client-id", "first", "--issuer", site.server.base_url)
    for options, token in (
        ((), ""),
        (("--token-file", file), site.token()),
        (client, site.token()),
        (client, ""),
        (("--client-id", "first", "--client-secret-file", file), ""),
        ((*client, "--client-secret-file", file, "--private-key-file", file), ""),
    ):
        require_refusal(site.remote(*options, *command, token=token), "give ", 2)
    require_refusal(site.remote("--actor", "ada", *command), "--actor", 2)


def test_a_client_that_gets_no_token_is_told_why(site, tmp_path):
    secret, wrong = tmp_path / "secret", tmp_path / "wrong"
    secret.write_text(add_client(site, "reader", ("scopes:read",)))
    wrong.write_text("not-the-secret-of-this-client")
    for credentials, text in (
        (("--client-secret-file", wrong), "Client authentication failed"),
        (("--client-secret-file", secret), "reader gets no token for clients:read"),
        (("--private-key-file", wrong), "no private key in PEM"),
        (("--client-secret-file", tmp_path / "none"), "No such file"),
    ):
        require_refusal(ask_as(site, "reader", *credentials), text)
    options = ("--client-id", "reader", "--client-secret-file", secret)
    for issuer, text in (
        (f"{site.server.base_url}/tenant", "does not publish metadata"),
        (site.url, "does not publish metadata"),
        ("http://authz.example", "use https"),
    ):
        result = site.remote(*options, "--issuer", issuer, "client", "list", token="")
        require_refusal(result, text)


def test_a_token_that_does_not_count_is_refused(site):
    site.parties.make_resource_server("mapper")
    site.secrets = {**site.secrets, "linker": add_client(site, "linker", ("mapper/link",))}
    other = site.token("linker", "mapper/link", resource="https://mapper.example")
    revoked = site.token("second", "clients:read", "tokens:revoke")
    assert site.local("token", "revoke", input=revoked).exit_code == 0
    for token, text in (
        ("two words", "characters of no token"),
        ("no-token", "refuses the access token"),
        (other, "refuses the access token"),
        (revoked, "refuses the access token"),
        (site.token("first", "scopes:read"), "The scope clients:read is required."),
    ):
        require_refusal(site.remote("client", "list", token=token), text)


def test_the_address_of_the_api_names_the_server_too(site):
    """As `admin init` and the documents print it."""
    for path in ("/", "/admin/v1", "/admin/v1/"):
        listed = site.remote("scope", "list", "--json", url=f"{site.url}{path}")
        assert listed.exit_code == 0, listed.output


def test_a_server_that_cannot_be_used_is_named(site, tmp_path):
    """No token goes to another host, or where others can read it."""
    port = reserve_port()
    plain = site.server.base_url.replace("http:", "https:")
    for url, text in (
        (f"https://localhost:{port}", "cannot be reached"),
        (plain, "cannot be reached"),
        (site.server.base_url, "management listener"),
        ("http://admin.example.org", "use https"),
        ("admin.example.org", "use "),
        ("https://user@admin.example.org", "use a URL"),
    ):
        require_refusal(site.remote("client", "list", url=url), text)
    release_port(port)
    (tmp_path / "other").mkdir()
    other = CertificateAuthority(tmp_path / "other").certificate_path
    require_refusal(site.remote("--ca-file", other, "client", "list"), "is not trusted")
    empty = tmp_path / "empty.pem"
    empty.touch()
    require_refusal(site.remote("--ca-file", empty, "client", "list"), "has no certificates")


def test_an_answer_that_is_not_one_of_the_api_is_refused(site):
    problem = b'{"type": "urn:authz-server:problem:too-many-requests", "title": "T"}'
    elsewhere = "Location: https://elsewhere.example/\r\n"
    for answer, text in (
        (answer_with(b"", 302, extra=elsewhere), "redirects to https://elsewhere.example/"),
        (answer_with(b"<html>", kind="text/html"), "management listener"),
        (answer_with(b'{"items":' + b"[" * 100_000), "management listener"),
        (answer_with(b"[]"), "management listener"),
        (answer_with(b'{"items": [{"id": 1}], "next": null, "total": 1}'), "another form"),
        (answer_with(problem, 429, extra="Retry-After: 7\r\n"), "Try again in 7 s."),
        (lambda *_: False, "did not answer"),
    ):
        with ScriptedServer(answer) as server:
            require_refusal(site.remote("client", "list", url=server.address), text)
            assert server.connections == 1


def test_a_refusal_of_the_server_reads_as_one_of_the_command_line(site):
    for command in (
        ("client", "show", "unknown"),
        ("client", "create", "first", "--name", "F", "--scope", "mapper/link"),
        ("client", "create", "odd", "--name", "F", "--scope", "mapper/unknown"),
        ("client", "update", "first", "--lifetime", "0"),
        ("scope", "add", "mapper/link"),
        ("keys", "taint", "unknown", "--reason", "x"),
        ("stop", "client", "unknown", "--reason", "x", "--yes"),
        ("stop", "lift", "client", "first", "--reason", "x"),
        ("changes", "show", "unknown"),
    ):
        here, there = site.local(*command), site.remote(*command)
        assert here.exit_code
        assert (there.exit_code, there.stdout) == (here.exit_code, here.stdout), command
        assert there.stderr == here.stderr


def test_other_commands_and_options_refuse_the_server(site, tmp_path):
    """No command works on the machine that it runs on when another one is named."""
    for _, command in leaves():
        if not command.remote:
            with pytest.raises(click.UsageError, match="machine alone"):
                command.invoke(click.Context(command, obj=Invocation(server="https://a.example")))
    file = tmp_path / "audit.jsonl"
    file.touch()
    for words in (
        ("audit", "verify", file),
        ("audit", "search", "--file", file),
        ("resource-server", "show", "mapper", "--snippet", "nginx"),
    ):
        require_refusal(site.remote(*words), "machine alone", 2)
    # What it lacks is of no interest there.
    require_refusal(site.remote("keys", "audit", "reconcile"), "machine alone", 2)
    require_refusal(site.remote("db", "backup"), "machine alone", 2)
    require_refusal(site.remote("keys", "rotate", "--yes"), "Name the RING: es256, local", 2)
    require_refusal(site.remote("policy-of-a-plugin"), "No such command", 2)
    require_refusal(site.remote("--server", "", "client", "list"), "--server", 2)


def test_credentials_without_a_server_are_a_usage_error(site, tmp_path):
    """The command does not work on the database beside it instead."""
    file = tmp_path / "token"
    file.write_text(site.token())
    disable, count = ("client", "disable", "second"), ("client", "list", "--count")
    token, empty = ("--token-file", file), {"AUTHZ_SERVER_URL": ""}
    require_refusal(site.local(*token, *disable), "--token-file: name the server", 2)
    require_refusal(site.local(*token, "config", "show"), "--token-file: name the server", 2)
    require_refusal(site.local(*token, "policy-of-a-plugin"), "--token-file: name the server", 2)
    require_refusal(site.local(*disable, **empty), "AUTHZ_SERVER_URL is empty", 2)
    assert '"enabled"' in site.local("client", "show", "second", "--json").stdout
    for result in (
        site.local(*count, AUTHZ_SERVER_TOKEN_FILE=str(file)),
        site.remote(*token, *count, token="", **empty),
        site.remote(*count, **empty),
    ):
        assert result.exit_code == 0, result.output


def test_long_lists_are_fetched_page_by_page(site, monkeypatch):
    monkeypatch.setattr(api, "PAGE", 2)
    for command in (
        ("client", "list", "--json"),
        ("client", "list", "--sort", "name", "--json"),
        ("client", "list", "--limit", "3", "--page", "2", "--descending"),
        ("scope", "list", "--json"),
        ("audit", "search", "--limit", "5", "--json"),
        ("audit", "export", "--event", "client.", "--format", "jsonl"),
    ):
        here, there = site.local(*command), site.remote(*command)
        assert here.exit_code == 0, here.output
        assert (there.stdout, there.stderr) == (here.stdout, here.stderr), command


def money_scope(site) -> str:
    scopes = json.loads(site.local("scope", "list", "--json").stdout)
    return next(each["name"] for each in scopes if each["risk"] == "money")


def test_a_change_that_waits_says_so_and_shows_its_secret(site, tmp_path):
    """The secret works once a second person has approved the change."""
    create = ("client", "create", "payer", "--name", "Payer", "--scope", money_scope(site))
    waiting = site.remote(*create)
    assert waiting.exit_code == 4
    assert "shown this once" in waiting.stdout
    assert "registered" not in waiting.output
    change = waiting.stderr.rpartition("changes approve ")[2].strip("`.\n")
    assert site.local("client", "show", "payer").exit_code == 1
    require_refusal(site.remote("changes", "approve", change), "a second person decides on it")
    approved = site.remote("changes", "approve", change, token=site.token("second"))
    assert approved.stdout == f"The change {change} is approved.\n"
    secret = tmp_path / "secret"
    secret.write_text(waiting.stdout.splitlines()[1])
    time.sleep(1.0)
    refused = ask_as(site, "payer", "--client-secret-file", secret)
    # It authenticates, and has no scope of the admin API.
    assert "payer gets no token for clients:read" in refused.stderr
    assert "authentication" not in refused.stderr

    secret = tmp_path / "new"
    words = ("client", "create", "--name", "P", "--scope", money_scope(site), "--json")
    waiting = site.remote(*words, "--secret-output", secret)
    record = json.loads(waiting.stdout)
    assert (waiting.exit_code, record["state"]) == (4, "pending")
    assert record["secret_file"] == str(secret)
    assert secret.read_text().strip()
    rejected = site.remote("changes", "reject", record["id"], token=site.token("second"))
    assert rejected.stdout == f"The change {record['id']} is rejected.\n"

    grant = ("client", "update", "first", "--scope", money_scope(site), "--scope", "clients:read")
    waiting = site.remote(*grant)
    assert (waiting.exit_code, waiting.stdout) == (4, "")
    change = waiting.stderr.rpartition("changes approve ")[2].strip("`.\n")
    withdrawn = site.remote("changes", "withdraw", change)
    assert withdrawn.stdout == f"The change {change} is withdrawn.\n"


def test_every_command_writes_a_secret_that_waits_to_its_file(tmp_path, capsys):
    """Not to the terminal, where the file is named."""
    found = 0
    for words, command in leaves():
        options = [str(each.name) for each in command.params if str(each.name).endswith("_output")]
        for option in options if command.remote else ():
            file = tmp_path / "-".join((*words, option))
            waiting = WaitsForApproval({"id": "c", "answer": {"id": "s", "value": "the-secret"}})
            with click.Context(command):
                waiting.show({option: file})
            assert file.read_text() == "the-secret\n"
            assert "the-secret" not in capsys.readouterr().out
            found += 1
    assert found >= 7


def test_a_deletion_concerns_the_client_that_was_shown(site, monkeypatch):
    add_client(site, "edited", ("mapper/link",))

    def change_meanwhile(*_args, **_kwargs) -> bool:
        assert site.local("client", "update", "edited", "--name", "Other").exit_code == 0
        return True

    monkeypatch.setattr(click, "confirm", change_meanwhile)
    result = site.remote("client", "delete", "edited")
    require_refusal(result, "Another change was made since.")
    assert site.local("client", "show", "edited").exit_code == 0


def test_a_creation_whose_answer_is_lost_is_made_once(site):
    """The request is repeated with its key; the secret cannot be shown again."""
    create = ("client", "create", "lost", "--name", "L", "--scope", "mapper/link")
    with losing_an_answer(site) as (between, lost):
        result = site.remote(*create, url=between.address)
    assert b" 201 " in lost[0]
    require_refusal(result, "the answer that showed it once was lost")
    assert "/clients/lost/secrets adds a secret" in result.stderr
    secrets = json.loads(site.local("client", "secret", "list", "lost", "--json").stdout)
    assert len(secrets) == 1


def test_a_waiting_creation_whose_answer_is_lost_is_to_be_requested_again(site):
    """Its secret is lost; a client without one waits as usual."""
    create = ("client", "create", "--name", "L", "--scope", money_scope(site))
    with losing_an_answer(site) as (between, lost):
        result = site.remote(*create, url=between.address)
    assert b" 202 " in lost[0]
    change = json.loads(lost[0].partition(b"\r\n\r\n")[2])["id"]
    require_refusal(result, f"`authz-server changes withdraw {change}`")
    assert site.remote("changes", "withdraw", change).exit_code == 0
    for further, text in (
        (("--no-secret",), ""),
        (("--secret-stdin",), "a-secret-of-the-payer-5281"),
    ):
        with losing_an_answer(site) as (between, lost):
            result = site.remote(*create, *further, url=between.address, input=text)
        assert result.exit_code == 4, result.output
        assert "Nothing is changed yet" in result.stderr
