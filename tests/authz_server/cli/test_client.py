import json
import re

import pytest

from support.assertions import jwks_of, new_key


def _create(cli, *options, **keywords):
    base = ("client", "create", "ministry", "--name", "Ministry", "--scope", "mapper/link")
    return cli.json(*base, *options, **keywords)


def test_a_client_is_registered_with_a_secret_shown_once(stocked):
    """Case H88. Case H98."""
    created = _create(stocked)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", created["secret"])
    shown = stocked.json("client", "show", "ministry")
    assert shown["allowed_scopes"] == ["mapper/link"]
    assert [secret["id"] for secret in shown["secrets"]] == [created["secret_id"]]
    for command in (("show", "ministry"), ("secret", "list", "ministry"), ("list",)):
        for form in ((), ("--json",)):
            assert created["secret"] not in stocked.must("client", *command, *form)


def test_client_may_send_its_secret_by_either_method_unless_one_is_named(stocked):
    """Case A7."""
    _create(stocked)
    shown = stocked.json("client", "show", "ministry")
    assert shown["authentication_method"] == "client_secret"
    for method in ("client_secret_basic", "client_secret_post", "client_secret"):
        stocked.must("client", "update", "ministry", "--authentication-method", method)
        assert stocked.json("client", "show", "ministry")["authentication_method"] == method
    text = " ".join(stocked.must("client", "create", "--help").split())
    assert "client_secret (Basic and the form), client_secret_basic or client_secret_post" in text
    assert "[default: client_secret]" in text


def test_it_is_said_what_becomes_of_earlier_tokens(stocked):
    """Case Q226."""
    _create(stocked)
    assert "--revoke ends them permanently" in stocked.must("client", "disable", "ministry")
    assert "--revoke-earlier ends them permanently" in stocked.must("client", "enable", "ministry")
    actions = [action for _, action, _ in stocked.audit_records()]
    assert "cut_off.recorded" not in actions
    assert "are revoked" in stocked.must("client", "disable", "ministry", "--revoke")
    assert "are revoked" in stocked.must("client", "enable", "ministry", "--revoke-earlier")
    ended = [each for each in stocked.audit_records() if each[1] == "cut_off.recorded"]
    assert [subject for _, _, subject in ended] == ["client:ministry"] * 2
    stocked.must("client", "delete", "ministry", "--yes")
    assert stocked.audit_records()[-1][1:] == ("cut_off.recorded", "client:ministry")


def test_scopes_without_a_resource_server_are_named(stocked):
    create = ("client", "create", "ministry", "--name", "Ministry", "--scope", "mapper/link")
    update = ("client", "update", "ministry", "--scope", "mapper/link", "--scope", "disburse")
    warning = "scope assign` gives them a resource server: "
    assert warning + "mapper/link\n" in stocked.run(*create).stderr
    assert warning + "disburse/disburse, mapper/link\n" in stocked.run(*update).stderr
    server = ("resource-server", "create", "mapper", "--name", "Mapper", "--no-secret")
    stocked.must(*server, "--identifier", "https://mapper.example", "--scope", "mapper/*")
    assert warning + "disburse/disburse\n" in stocked.run(*update).stderr
    assert stocked.run(*update[:-2]).stderr == ""


def test_every_change_leaves_a_record_with_the_operator(stocked):
    """Case H98. Case K124."""
    _create(stocked, "--actor", "alice")
    stocked.must("--actor", "operator:bob", "client", "disable", "ministry")
    stocked.must("client", "delete", "ministry", "--yes")
    records = [record for record in stocked.audit_records() if record[2] == "ministry"]
    assert [record[:2] for record in records[:3]] == [
        ("operator:alice via cli", "client.created"),
        ("operator:alice via cli", "client.secret_added"),
        ("operator:bob via cli", "client.disabled"),
    ]
    assert records[3][1] == "client.deleted"
    assert re.fullmatch(r"operator:\S+ via cli", records[3][0])


def test_scopes_are_taken_in_any_spelling_and_by_the_branch(stocked):
    created = stocked.json(
        *("client", "create", "--name", "Mapper user", "--no-secret"),
        *("--scope", "mapper/sync/*", "--scope", "disburse", "--default-scope", "disburse"),
    )
    assert set(created) == {"id"}
    shown = stocked.json("client", "show", created["id"])
    assert shown["allowed_scopes"] == [
        "mapper/sync/link",
        "mapper/sync/resolve",
        "mapper/sync/txn/status",
        "mapper/sync/unlink",
        "mapper/sync/update",
        "disburse/disburse",
    ]
    assert shown["default_scopes"] == ["disburse/disburse"]
    assert shown["secrets"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--name", "x"), "--scope"),
        (("--name", "x", "--scope", "mapper/nothing"), "mapper/nothing"),
        (("--name", "x", "--scope", "land/*"), "no scope under 'land/\\*'"),
        (("--name", "x", "--scope", "*"), "no scope '\\*'"),
        (("--name", "", "--scope", "mapper/link"), "name"),
        (("--name", "x", "--scope", "mapper/link", "--lifetime", "0"), "token_lifetime_seconds"),
        (("--name", "x", "--scope", "mapper/link", "--lifetime", "1e400"), "lifetime"),
        (("--name", "x", "--scope", "mapper/link", "--expires", "soon"), "2030-01-31"),
        (("a b", "--name", "x", "--scope", "mapper/link"), "id"),
        (("--name", "x", "--scope", "mapper/link", "--permission", "all"), "permission"),
    ],
)
def test_what_breaks_a_rule_is_refused_in_a_sentence(shared_cli, arguments, says):
    """Case H98. Case L129."""
    assert re.search(says, shared_cli.refused("client", "create", *arguments))
    assert shared_cli.json("client", "list") == []


def test_an_unknown_client_is_named_and_the_list_is_pointed_at(stocked):
    """Case H98."""
    for command in (("show",), ("enable",), ("delete", "--yes"), ("secret", "list")):
        sentence = stocked.refused("client", *command, "nobody")
        assert "nobody" in sentence
        assert "client list" in sentence


def test_a_secret_comes_from_a_file_stdin_or_a_prompt(stocked, tmp_path):
    """Case H98."""
    _create(stocked, "--no-secret")
    path = tmp_path / "imported"
    path.write_text("imported secret 1\n")
    add = ("client", "secret", "add", "ministry")
    assert "secret" not in stocked.json(*add, "--secret-file", path)
    first = stocked.must(*add, "--secret-stdin", input="imported secret 2\n")
    assert "imported secret" not in first.replace("The imported secret is", "")
    secrets = stocked.json("client", "secret", "list", "ministry")
    assert [secret["imported"] for secret in secrets] == [True, True]
    stocked.must("client", "secret", "end", "ministry", secrets[0]["id"])
    asked = stocked.must(*add, "--secret-prompt", input="typed secret\ntyped secret\n")
    assert "typed secret" not in asked


def test_no_option_takes_a_secret_as_argument(stocked):
    """Case H98."""
    _create(stocked, "--no-secret")
    refused = stocked.run("client", "secret", "add", "ministry", "--secret", "in the open")
    assert refused.exit_code == 2
    assert stocked.run("client", "secret", "add", "ministry", "in the open").exit_code == 2
    assert stocked.json("client", "secret", "list", "ministry") == []


def test_a_generated_secret_goes_to_a_private_file_where_asked(stocked, tmp_path):
    """Case H98."""
    path = tmp_path / "new"
    created = _create(stocked, "--secret-output", path)
    assert created["secret_file"] == str(path)
    assert "secret" not in created
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    sentence = stocked.refused("client", "secret", "add", "ministry", "--secret-output", path)
    assert "exists" in sentence
    assert len(stocked.json("client", "secret", "list", "ministry")) == 1


def test_rotation_gives_the_old_secret_an_overlap(stocked):
    """Case A12."""
    old = _create(stocked)["secret_id"]
    stocked.must("client", "secret", "add", "ministry", "--description", "2030")
    stocked.must("client", "secret", "end", "ministry", old, "--at", "+1h")
    first, second = stocked.json("client", "secret", "list", "ministry")
    assert first["works"]
    assert first["ends_at"] is not None
    assert second["ends_at"] is None
    stocked.must("client", "secret", "end", "ministry", old)
    assert not stocked.json("client", "secret", "list", "ministry")[0]["works"]


def test_an_update_changes_what_is_named(stocked):
    _create(stocked, "--lifetime", "60", "--permission", "introspect:any")
    stocked.must(
        *("client", "update", "ministry", "--name", "Treasury", "--scope", "mapper/*"),
        *("--lifetime", "none", "--expires", "+30d", "--permission", "none"),
    )
    shown = stocked.json("client", "show", "ministry")
    assert (shown["name"], shown["token_lifetime_seconds"]) == ("Treasury", None)
    assert len(shown["allowed_scopes"]) == 15
    assert shown["permissions"] == []
    assert shown["expires_at"] is not None
    stocked.must("client", "update", "ministry", "--expires", "none")
    assert stocked.json("client", "show", "ministry")["expires_at"] is None
    assert "Name something" in stocked.refused("client", "update", "ministry")


def test_states_are_told_apart(stocked):
    for id_, options in {
        "works": (),
        "later": ("--starts", "+1d"),
        "over": ("--starts", "2020-01-01", "--expires", "2020-01-02"),
        "off": (),
    }.items():
        base = ("client", "create", id_, "--name", id_, "--scope", "mapper/link", "--no-secret")
        stocked.must(*base, *options)
    stocked.must("client", "disable", "off")
    states = {each["id"]: each["state"] for each in stocked.json("client", "list")}
    assert states == {"works": "enabled", "later": "not yet", "over": "expired", "off": "disabled"}
    stocked.must("client", "enable", "off")
    assert stocked.json("client", "show", "off")["state"] == "enabled"


def test_deleting_asks_first(stocked):
    _create(stocked)
    result = stocked.run("client", "delete", "ministry", input="n\n")
    assert result.exit_code == 1
    assert stocked.json("client", "show", "ministry")["id"] == "ministry"
    stocked.must("client", "delete", "ministry", input="y\n")
    assert stocked.json("client", "list") == []


def test_tables_show_names_as_they_are(stocked):
    name = "[red]Ministry[/red] " + "x" * 150
    stocked.must("client", "create", "ministry", "--name", name, "--scope", "mapper/link")
    assert "[red]Ministry[/red]" in stocked.must("client", "list")
    assert "[red]Ministry[/red]" in stocked.must("client", "show", "ministry")


def test_more_clients_than_a_page_are_all_listed(stocked, monkeypatch):
    monkeypatch.setattr("authz_server.operations.client_search._CHUNK", 2)
    for number in range(5):
        base = ("client", "create", f"client-{number}", "--name", "x", "--scope", "mapper/link")
        stocked.must(*base, "--no-secret")
    assert len(stocked.json("client", "list")) == 5
    for options, count in (((), "5 clients."), (("--limit", "3"), "3 of 5 clients.")):
        assert stocked.run("client", "list", *options).stderr == f"{count}\n"


def test_client_has_the_grant_types_and_the_method_that_are_registered(stocked):
    create = ("client", "create", "ministry", "--name", "M", "--scope", "mapper/link")
    for option, value, known in (
        ("--grant-type", "implicit", "client_credentials"),
        ("--authentication-method", "none", "client_secret or client_secret_basic"),
    ):
        sentence = stocked.refused(*create, option, value)
        assert option.removeprefix("--").split("-")[0] in sentence
        assert known in sentence
    stocked.must(*create)
    assert stocked.json("client", "show", "ministry")["grant_types"] == ["client_credentials"]
    update = ("client", "update", "ministry", "--grant-type")
    stocked.must(*update, "none")
    assert stocked.json("client", "show", "ministry")["grant_types"] == []
    stocked.must(*update, "client_credentials")
    assert stocked.json("client", "show", "ministry")["grant_types"] == ["client_credentials"]


def test_public_keys_are_registered_from_a_file_or_by_address(stocked, tmp_path):
    """Case D55."""
    key = new_key()
    public, private = tmp_path / "public.json", tmp_path / "private.json"
    public.write_text(json.dumps(jwks_of(key)))
    private.write_text(json.dumps({"keys": [key.as_dict(private=True)]}))
    create = ("client", "create", "signer", "--name", "Signer", "--scope", "mapper/link")
    method = ("--authentication-method", "private_key_jwt")
    assert "jwks: a private" in stocked.refused(*create, *method, "--jwks", str(private))
    created = json.loads(stocked.must(*create, *method, "--jwks", str(public), "--json"))
    # No secret is made that the method would not use.
    assert created == {"id": "signer"}

    def properties() -> dict:
        return stocked.json("client", "show", "signer")["properties"]

    assert properties() == {"jwks": jwks_of(key)}
    removed = stocked.run("client", "update", "signer", "--set", "jwks=none")
    assert "signer has no keys yet" in removed.stderr
    to_secret = ("client", "update", "signer", "--authentication-method", "client_secret_jwt")
    assert "client secret add signer" in stocked.run(*to_secret).stderr
    stocked.must("client", "update", "signer", *method)
    address = ("--jwks-uri", "https://keys.example/jwks")
    stocked.must("client", "update", "signer", *address)
    assert properties() == {"jwks_uri": "https://keys.example/jwks"}
    stocked.must("client", "update", "signer", "--jwks", str(public))
    assert properties() == {"jwks": jwks_of(key)}
    both = stocked.run("client", "update", "signer", "--jwks", str(public), *address)
    assert (both.exit_code, "--jwks or --jwks-uri" in both.stderr) == (2, True)
    missing = stocked.run("client", "update", "signer", "--jwks", "not-there.json")
    assert (missing.exit_code, "not-there.json" in missing.stderr) == (2, True)
