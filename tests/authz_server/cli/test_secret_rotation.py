"""``secret rotate`` and ``secret due`` of clients and resource servers, and limits on ``--set``."""

import json
import re

import pytest


@pytest.fixture(params=["client", "resource-server"])
def noun(request, stocked) -> str:
    """A kind of party, one of which has the id `party` and a secret."""
    own = {
        "client": ("--scope", "mapper/link"),
        "resource-server": ("--identifier", "https://party.example"),
    }
    stocked.must(request.param, "create", "party", "--name", "Party", *own[request.param])
    return request.param


def test_rotation_adds_a_secret_and_plans_the_end_of_the_others(stocked, noun, tmp_path):
    """Cases H88, H98, T286."""
    (old,) = stocked.json(noun, "secret", "list", "party")
    rotated = stocked.json(
        *(noun, "secret", "rotate", "party", "--end-old-when-unused", "7d"),
        *("--end-old-at", "+30d", "--expires", "+90d", "--description", "second"),
    )
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", rotated["secret"])
    (ending,) = rotated["old"]
    assert (ending["id"], ending["ends_when_unused_seconds"]) == (old["id"], 604_800)
    assert ending["ends_at"] is not None
    first, second = stocked.json(noun, "secret", "list", "party")
    assert (first["id"], second["id"]) == (old["id"], rotated["secret_id"])
    assert (first["works"], second["works"]) == (True, True)
    assert second["description"] == "second"
    assert ("operator:alice", f"{noun.replace('-', '_')}.secret_rotated", "party") in [
        ("operator:alice", *record[1:]) for record in stocked.audit_records()
    ]
    path = tmp_path / "third"
    text = stocked.must(
        *(noun, "secret", "rotate", "party", "--end-old-when-unused", "12h"),
        *("--secret-output", path),
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert f"The secret {old['id']} ends at " in text
    assert "or when it has not been used for 12 h." in text


def test_rotation_needs_an_end_of_the_old_secrets(stocked, noun):
    """Case T286."""
    assert stocked.run(noun, "secret", "rotate", "party").exit_code == 2
    for span in ("7", "-7d", "7w", "soon"):
        refused = stocked.run(noun, "secret", "rotate", "party", "--end-old-when-unused", span)
        assert refused.exit_code == 2
        assert "7d" in refused.stderr
    sentence = stocked.refused(noun, "secret", "rotate", "party", "--end-old-when-unused", "59m")
    assert "1 hour to 366 days" in sentence
    sentence = stocked.refused(noun, "secret", "rotate", "nobody", "--end-old-at", "+1d")
    assert "nobody" in sentence
    assert len(stocked.json(noun, "secret", "list", "party")) == 1


def test_secrets_that_end_soon_are_listed_over_all_parties(stocked, noun):
    """Case T286."""
    assert stocked.json(noun, "secret", "due") == []
    stocked.must(noun, "secret", "add", "party", "--expires", "+20d", "--description", "soon")
    stocked.must(noun, "secret", "add", "party", "--expires", "+40d")
    (due,) = stocked.json(noun, "secret", "due")
    assert (due["id"], due["name"], due["description"]) == ("party", "Party", "soon")
    assert (due["days_left"], due["last_used_at"], due["replaced"]) == (19, None, True)
    assert len(stocked.json(noun, "secret", "due", "--within", "60d")) == 2
    assert stocked.json(noun, "secret", "due", "--within", "1d") == []
    assert "soon" in stocked.must(noun, "secret", "due", "--within", "30d")
    other = {"client": "resource-server", "resource-server": "client"}[noun]
    assert stocked.json(other, "secret", "due", "--within", "60d") == []
    stocked.must(noun, "disable", "party")
    assert stocked.json(noun, "secret", "due") == []


def test_limits_are_set_shown_and_removed(stocked, tmp_path):
    """A file may hold the value, as a partner's certificate does. Cases T281 to T284."""
    window = {"days": ["mon"], "from": "08:00", "to": "17:00", "time_zone": "Africa/Nairobi"}
    (tmp_path / "windows.json").write_text(json.dumps([window]))
    (tmp_path / "key.jwk").write_text(
        '{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
    )
    values = {
        "allowed_networks": '["10.0.0.0/8", "192.0.2.7"]',
        "payment_windows": f"@{tmp_path}/windows.json",
        "token_budget": '{"per": "hour", "tokens": 100}',
        "sender_id": "spp.example.org",
        "message_key_thumbprint": f"@{tmp_path}/key.jwk",
    }
    options = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    stocked.must("client", "create", "party", "--name", "P", "--scope", "mapper/link", *options)
    assert stocked.json("client", "show", "party")["properties"] == {
        "allowed_networks": ["10.0.0.0/8", "192.0.2.7/32"],
        "payment_windows": [window],
        "token_budget": [{"per": "hour", "tokens": 100}],
        "sender_id": "spp.example.org",
        # RFC 8037, A.3.
        "message_key_thumbprint": {"jkt": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
    }
    for name in values:
        sentence = stocked.refused("client", "update", "party", "--set", f"{name}=[17]")
        assert name in sentence
    stocked.must("client", "update", "party", *[p for n in values for p in ("--set", f"{n}=none")])
    assert stocked.json("client", "show", "party")["properties"] == {}
