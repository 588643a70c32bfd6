import json
from datetime import UTC, datetime

import pytest

from authz_server.assembly.operator import operator_services
from authz_server.operations.keys import affected_tokens
from authz_server.settings import load_settings
from keys.errors import BackendDenied
from support.settings_file import write_settings


def kids(cli):
    return [key["kid"] for key in cli.json("keys", "list")]


def test_the_first_keys_are_made_once(cli):
    planned = cli.json("keys", "init", "--dry-run")[0]
    assert (planned["written"], cli.json("keys", "list")) == (False, [])
    assert "2 keys are to be made" in planned["sentence"]
    assert cli.json("keys", "init")[0]["written"] is True
    assert cli.json("keys", "init", "es256")[0]["written"] is False
    assert [key["state"] for key in cli.json("keys", "list")] == ["active", "published"]
    assert "no keys.rings.other" in cli.refused("keys", "init", "other")


def test_a_rotation_is_planned_and_made(keyed):
    planned = keyed.json("keys", "rotate", "--dry-run")
    assert (planned["dry_run"], planned["written"], planned["ring"]) == (True, False, "es256")
    assert planned["at_backend"] == [{"act": "create", "version": None}]
    assert any("invariant 1" in wait["why"] for wait in planned["waits"])
    assert planned["readers"]["kid"] == kids(keyed)[1]
    assert len(kids(keyed)) == 2
    made = keyed.json("keys", "rotate", "es256", "--reason", "ticket 7")
    assert made["created"]["version"] == 3
    assert made["created"]["kid"] == kids(keyed)[2]
    second = keyed.json("keys", "list")[1]
    assert second["activate_at"] > second["published_at"]
    assert "is under way" in keyed.refused("keys", "rotate", "es256")


def test_no_version_is_made_under_another_key_encryption_key(keyed):
    """A server with the ring's own key could not sign with it."""
    before = keyed.json("keys", "list")
    _lose_key_encryption_key(keyed)
    refusal = keyed.refused("keys", "rotate", "--reason", "with another key")
    assert "the keys here are encrypted under another key-encryption key" in refusal
    assert keyed.json("keys", "list") == before


def _lose_key_encryption_key(cli):
    (cli.config.parent / "key-encryption-key").write_text("ab" * 16 + "0123456789abcdef" * 2)


def _sign(cli, ring, version):
    settings = load_settings(cli.config)
    algorithm = settings.keys.rings[ring].algorithm
    with operator_services(settings) as services:
        return services.key_backends["sql://"].sign(ring, version, algorithm, [b"data"])


def test_a_ring_signs_again_after_the_loss_of_the_key_encryption_key(cli, tmp_path):
    """One ring after the other, each by an explicit order; issued tokens stay valid."""
    rings = {"keys": {"rings": {"rs256": {"algorithm": "RS256"}}}}
    cli.config = write_settings(tmp_path, cli.database_url, rings)
    cli.must("keys", "init")
    _lose_key_encryption_key(cli)
    for ring, other in (("rs256", "es256"), ("es256", "es256")):
        assert "another key-encryption key" in cli.refused("keys", "rotate", ring)
        because = ("--reason", "the key-encryption key is lost")
        made = cli.json("keys", "rotate", ring, "--key-encryption-key-lost", *because)
        kid = made["created"]["kid"]
        cli.must("keys", "activate", kid, "--emergency", *because)
        listed = [key for key in cli.json("keys", "list") if key["ring"] == ring]
        assert [key["state"] for key in listed] == ["retired", "retired", "active"]
        assert _sign(cli, ring, "3")
        if other != ring:
            assert "another key-encryption key" in cli.refused("keys", "rotate", other)
    # Further keys need no such order.
    made = cli.json("keys", "rotate", "es256")
    assert made["created"]["version"] == 4
    with pytest.raises(BackendDenied):
        _sign(cli, "es256", "1")


@pytest.mark.usefixtures("installation")
def test_a_loss_is_stated_where_there_is_such_a_key_alone(cli):
    option = "--key-encryption-key-lost"
    assert option in cli.refused("keys", "rotate", "es256", option, "--server", "http://[::1]:1")
    ring = cli.json("keys", "list")[0]["ring"]
    refused = cli.refused("keys", "rotate", ring, option)
    assert f"{ring}: no key-encryption key encrypts its keys" in refused


def test_a_ring_without_a_signer_gets_one_after_the_loss(keyed):
    """Its keys were revoked first, as if they had leaked, and none could be made."""
    _lose_key_encryption_key(keyed)
    revoked = keyed.run("keys", "revoke", "es256", "--all-versions", "--reason", "lost")
    assert revoked.exit_code == 3
    keyed.must("keys", "rotate", "es256", "--key-encryption-key-lost")
    states = [key["state"] for key in keyed.json("keys", "list")]
    assert states == ["revoked", "revoked", "active"]
    assert _sign(keyed, "es256", "3")


def test_a_plan_is_read_by_people(keyed):
    text = keyed.must("keys", "rotate", "es256", "--dry-run")
    assert "Nothing was changed." in text
    assert "No reader of the JWKS was seen in 7 days." in text


def test_a_key_cannot_sign_before_verifiers_know_it(keyed):
    """Case G75."""
    standby = kids(keyed)[1]
    refused = keyed.refused("keys", "activate", standby, "--reason", "haste")
    assert "invariant 1" in refused
    planned = keyed.json(
        *("keys", "activate", standby, "--reason", "fire", "--emergency", "--dry-run")
    )
    assert [each["event"] for each in planned["changes"]][:1] == ["emergency.exception"]
    made = keyed.json("keys", "activate", standby, "--reason", "fire", "--emergency")
    assert made["written"] is True
    listed = keyed.json("keys", "list")
    assert [key["state"] for key in listed][:2] == ["retired", "active"]
    recorded = [each[1] for each in keyed.audit_records()]
    assert "emergency.exception" in recorded


def test_a_key_is_activated_at_a_time(keyed):
    standby = kids(keyed)[1]
    keyed.json("keys", "activate", standby, "--reason", "plan", "--at", "+3d")
    first, second = keyed.json("keys", "list")[:2]
    assert (first["state"], second["state"]) == ("active", "published")
    assert second["activate_at"] is not None


def test_a_tainted_key_signs_no_more_and_still_verifies(keyed):
    first = kids(keyed)[0]
    keyed.json("keys", "taint", first, "--reason", "left on a train")
    listed = keyed.json("keys", "list")
    assert [key["state"] for key in listed][:2] == ["tainted", "active"]
    assert "tainted already" in keyed.refused("keys", "taint", first, "--reason", "again")


def test_a_revocation_says_whom_it_concerns(keyed, tmp_path):
    """Case G83."""
    first = kids(keyed)[0]
    at = {"time": "2020-01-01T00:00:00.000Z"}
    record = at | {"event": "token.issued", "kid": first, "client_id": "ministry"}
    lines = [
        at | {"event": "server.started"},
        record | {"expires_at": 4_000_000_000},
        record | {"expires_at": 1_000_000_000},
        record | {"expires_at": 4_000_000_001, "kid": "another"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "audit.jsonl").write_text(text + '{"event":"token.issued","ki')
    planned = keyed.json("keys", "revoke", first, "--reason", "stolen", "--dry-run")
    impact = planned["impact"]
    assert (impact["tokens"], impact["clients"]) == (1, ["ministry"])
    assert impact["last_expires_at"] == "2096-10-02T07:06:40Z"
    assert impact["complete"] is True
    assert (impact["introspection_refuses_within_seconds"], impact["tokens"]) == (5, 1)
    assert [key["state"] for key in keyed.json("keys", "list")] == ["active", "published"]
    text = keyed.must("keys", "revoke", first, "--reason", "stolen", "--dry-run")
    assert "1 of its tokens is in force" in text
    assert "often 24 h" in text


def test_a_revocation_concerns_the_tokens_that_were_exchanged_from_those_of_the_key(
    keyed, tmp_path
):
    first = kids(keyed)[0]
    at = {"time": datetime.now(UTC).isoformat(), "expires_at": 4_000_000_000}

    def issued(jti: str, kid: str, client: str) -> dict:
        return at | {"event": "token.issued", "jti": jti, "kid": kid, "client_id": client}

    def exchanged(jti: str, subject: str) -> dict:
        origin = {"subject_jti": subject, "subject_client_id": "any"}
        return at | {"event": "token.exchanged", "jti": jti} | origin

    lines = [
        issued("a", first, "ministry"),
        exchanged("b", "a"),
        issued("b", "another", "gateway"),
        exchanged("c", "b"),
        issued("c", "another", "bank"),
        issued("d", "another", "ministry"),
        exchanged("e", "d"),
        issued("e", "another", "shop"),
    ]
    (tmp_path / "audit.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    impact = keyed.json("keys", "revoke", first, "--reason", "stolen", "--dry-run")["impact"]
    assert (impact["tokens"], impact["clients"]) == (3, ["bank", "gateway", "ministry"])


def test_a_revocation_takes_the_key_back_and_records_how_long_it_took(keyed):
    """Case G83."""
    first, second = kids(keyed)
    made = keyed.json("keys", "revoke", first, "--reason", "stolen")
    assert made["written"] is True
    assert "written" in made["seconds"]
    states = {key["kid"]: key["state"] for key in keyed.json("keys", "list")}
    assert (states[first], states[second]) == ("revoked", "active")
    recorded = [each[1:] for each in keyed.audit_records()]
    assert ("key.revocation_timed", first) in recorded
    refused = keyed.refused("keys", "revoke", first, "--reason", "again")
    assert "not in the JWKS" in refused


def test_every_version_of_a_ring_is_revoked_and_a_new_one_signs(keyed):
    """Case G83."""
    old = kids(keyed)
    made = keyed.json("keys", "revoke", old[0], "--all-versions", "--reason", "all leaked")
    states = {key["kid"]: key["state"] for key in keyed.json("keys", "list")}
    assert {states.pop(kid) for kid in old} == {"revoked"}
    assert "active" in states.values()
    assert made["created"]["kid"] in states


def test_what_cannot_be_counted_is_said(cli, tmp_path):
    streamed = {"audit": {"destination": "stderr"}}
    cli.config = write_settings(tmp_path, cli.database_url, streamed)
    cli.must("keys", "init")
    first = kids(cli)[0]
    impact = cli.json("keys", "revoke", first, "--reason", "x", "--dry-run")["impact"]
    assert (impact["tokens"], impact["clients"], impact["complete"]) == (None, None, False)
    assert impact["no_token_lives_after"] is not None
    text = cli.must("keys", "revoke", first, "--reason", "x", "--dry-run")
    assert "cannot be counted here" in text


def test_a_file_of_records_that_cannot_be_read_fails_no_revocation(keyed, monkeypatch):
    """The key is revoked before its tokens are counted: it was answered by an error."""
    first = kids(keyed)[0]

    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(affected_tokens, "find_issued_tokens", refuse)
    done = keyed.json("keys", "revoke", first, "--reason", "stolen")
    assert (done["impact"]["tokens"], done["impact"]["complete"]) == (None, False)
    assert keyed.json("keys", "list")[0]["state"] == "revoked"


def test_a_frozen_ring_does_not_move(keyed):
    assert keyed.json("keys", "freeze", "es256", "--reason", "audit")["written"] is True
    assert "frozen" in keyed.refused("keys", "rotate", "es256")
    assert "frozen already" in keyed.refused("keys", "freeze", "es256", "--reason", "twice")
    assert keyed.json("keys", "unfreeze", "es256", "--reason", "done")["written"] is True
    keyed.must("keys", "rotate", "es256")


def test_a_ring_moves_to_another(cli, tmp_path):
    rings = {"keys": {"rings": {"rs256": {"algorithm": "RS256"}}}}
    cli.config = write_settings(tmp_path, cli.database_url, rings)
    cli.must("keys", "init")
    early = cli.refused("keys", "move", "rs256", "--to", "es256", "--reason", "x", "--at", "now")
    assert "invariant 1" in early
    moved = cli.json("keys", "move", "rs256", "--to", "es256", "--reason", "smaller tokens")
    assert moved["changes"][0]["event"] == "ring.succeeded"
    cli.must("keys", "tick")
    status = {ring["ring"]: ring for ring in cli.json("keys", "status")["rings"]}
    assert (status["rs256"]["next"], status["rs256"]["waits"]) == (None, [])
    assert status["es256"]["next"]["version"] == 2
    assert "next     none of this ring" in cli.must("keys", "status")
    assert "already" in cli.refused("keys", "move", "rs256", "--to", "es256", "--reason", "x")
    assert "no ring" in cli.refused("keys", "move", "rs257", "--to", "es256", "--reason", "x")


def test_an_order_without_a_reason_is_called_wrongly(keyed):
    for order in (
        ("activate", "KID"),
        ("taint", "KID"),
        ("revoke", "KID"),
        ("freeze", "es256"),
        ("unfreeze", "es256"),
        ("move", "es256", "--to", "rs256"),
        ("destroy", "es256"),
    ):
        result = keyed.run("keys", *order)
        assert (result.exit_code, "--reason" in result.stderr) == (2, True), order
        result = keyed.run("keys", *order, "--reason", " \n")
        assert result.exit_code == 2, order
        assert "printable" in result.stderr, order


def test_an_unknown_key_is_refused(keyed):
    for verb in ("activate", "taint", "revoke"):
        result = keyed.run("keys", verb, "nobody", "--reason", "x")
        assert result.exit_code == 1, verb
        assert "no ring has a key 'nobody'" in result.stderr, verb


def test_whoever_orders_is_recorded(keyed):
    keyed.must("keys", "freeze", "es256", "--reason", "audit", "--actor", "grace")
    assert ("operator:grace via cli", "ring.frozen", "es256") in keyed.audit_records()


def test_nothing_is_destroyed_that_is_in_use(keyed):
    assert "no removed key" in keyed.refused("keys", "destroy", "es256", "--reason", "tidy")


def test_pruning_has_an_outcome_for_each_ring(keyed):
    assert [each["ring"] for each in keyed.json("keys", "prune")] == ["es256"]
    assert "nothing to do" in keyed.must("keys", "prune", "es256")
    assert "no ring 'other'" in keyed.refused("keys", "prune", "other")


@pytest.mark.parametrize("verb", ["activate", "taint", "revoke"])
def test_a_key_id_may_begin_with_a_hyphen(keyed, verb):
    for kid in ("-h", "-Tx", "--x", "--help-me"):
        result = keyed.run("keys", verb, kid, "--reason", "x")
        assert (result.exit_code, f"no ring has a key '{kid}'" in result.stderr) == (1, True)
    assert keyed.run("keys", verb, "a", "--dryrun", "--reason", "x").exit_code == 2


def test_the_members_of_an_outcome_stay(keyed):
    members = {
        *("command", "ring", "epoch", "at", "dry_run", "written", "changes", "at_backend"),
        *("created", "fenced", "waits", "alarms", "failures", "seconds"),
    }
    first = kids(keyed)[0]
    assert set(keyed.json("keys", "tick", "--dry-run")[0]) == members
    assert set(keyed.json("keys", "rotate", "--dry-run")) == members | {"readers"}
    revoked = keyed.json("keys", "revoke", first, "--reason", "x", "--dry-run")
    assert set(revoked) == members | {"impact"}
    assert set(revoked["changes"][1]) == {
        *("kid", "event", "reason", "version", "state", "activate_at", "remove_after"),
    }
