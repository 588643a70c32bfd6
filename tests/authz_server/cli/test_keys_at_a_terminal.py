"""Keys and secrets at a terminal: what is asked, how keys are named, what fits 80 columns."""

import re

import pytest

from support.terminal import COLUMNS, Terminal

ORDERS = {
    "revoke": (("revoke", "es256", "--reason", "leak"), "Revoke the key ", "lives after"),
    "taint": (("taint", "es256", "--reason", "doubt"), "Stop the key ", "lives after"),
    "rotate": (("rotate", "es256"), "Rotate the ring es256", "readers|reader of the JWKS"),
}


@pytest.fixture
def database_url(sqlite_url):
    """One database is enough where the terminal is what matters."""
    return sqlite_url


@pytest.fixture
def served(stocked):
    """The command line with a client that has one secret."""
    stocked.must(*("client", "create", "payer", "--name", "Payer", "--scope", "mapper/link"))
    return stocked


def keys(cli):
    return cli.json("keys", "list")


def secrets(cli):
    return cli.json("client", "secret", "list", "payer")


@pytest.mark.parametrize("command", ORDERS)
def test_a_change_that_cannot_be_taken_back_is_asked_for_below_its_impact(keyed, command):
    """Case S262."""
    order, question, impact = ORDERS[command]
    before = keys(keyed)
    with Terminal("--config", keyed.config, "keys", *order) as terminal:
        shown = terminal.until(question)
        terminal.answer("n")
        status, output = terminal.end()
    assert "Nothing was changed." in shown
    assert re.search(impact, shown)
    assert (status, output) == (1, "")
    assert keys(keyed) == before
    with Terminal("--config", keyed.config, "keys", *order, "--json") as terminal:
        terminal.until(question)
        terminal.answer("y")
        status, output = terminal.end()
    assert status == 0
    assert output.startswith("{")
    assert keys(keyed) != before


@pytest.mark.parametrize("command", ORDERS)
@pytest.mark.parametrize("answered", [("--yes",), ("--dry-run",)])
def test_what_is_answered_in_advance_or_only_planned_is_not_asked(keyed, command, answered):
    """Case S262."""
    before = keys(keyed)
    with Terminal(
        *("--config", keyed.config, "keys", *ORDERS[command][0], *answered), whole=True
    ) as terminal:
        status, shown = terminal.end()
    assert (status, "[y/N]" in shown) == (0, False)
    assert (keys(keyed) == before) == (answered == ("--dry-run",))


@pytest.mark.parametrize("command", ORDERS)
def test_without_a_terminal_nothing_is_asked(keyed, command):
    """Case S262."""
    before = keys(keyed)
    keyed.must("keys", *ORDERS[command][0])
    assert keys(keyed) != before


@pytest.mark.parametrize("act", ["disable", "enable"])
def test_sentences_fit_the_terminal(served, act):
    """A long sentence is folded at 80 columns between words."""
    with Terminal("--config", served.config, "client", act, "payer", whole=True) as terminal:
        status, shown = terminal.end()
    assert status == 0
    assert max(map(len, shown.splitlines())) <= COLUMNS
    assert f"The client payer is {act}d." in shown


def test_deleting_private_keys_is_asked_for(keyed):
    """Case S262."""
    keyed.must("keys", "revoke", "es256", "--reason", "leak")
    destroy = ("--config", keyed.config, "keys", "destroy", "es256", "--reason", "purge")
    with Terminal(*destroy) as terminal:
        terminal.until("permanently?")
        terminal.answer("n")
        assert terminal.end() == (1, "")
    with Terminal(*destroy, "--yes") as terminal:
        assert terminal.end()[0] == 0


def test_ending_the_last_secret_is_asked_for(served):
    """Case S262."""
    (first,) = secrets(served)
    end = ("--config", served.config, "client", "secret", "end", "payer")
    with Terminal(*end, first["id"]) as terminal:
        assert "No other secret of the client payer works then" in terminal.until("last secret?")
        terminal.answer("n")
        assert terminal.end() == (1, "")
    assert secrets(served)[0]["works"] is True
    served.must("client", "secret", "add", "payer")
    second = next(each for each in secrets(served) if each["id"] != first["id"])
    with Terminal(*end, first["id"]) as terminal:
        assert terminal.end()[0] == 0
    with Terminal(*end, second["id"]) as terminal:
        terminal.until("last secret?")
        terminal.answer("y")
        assert terminal.end()[0] == 0
    assert [each["works"] for each in secrets(served)] == [False, False]


def test_the_last_secret_of_a_resource_server_is_asked_for_unless_answered(stocked):
    """Case S262."""
    new = ("resource-server", "create", "mapper", "--name", "Mapper")
    stocked.must(*new, "--identifier", "https://mapper.example", "--scope", "mapper/link")
    (secret,) = stocked.json("resource-server", "secret", "list", "mapper")
    end = ("--config", stocked.config, "resource-server", "secret", "end", "mapper", secret["id"])
    with Terminal(*end) as terminal:
        assert "its introspection is refused" in " ".join(terminal.until("last secret?").split())
        terminal.answer("n")
        assert terminal.end() == (1, "")
    with Terminal(*end, "--yes") as terminal:
        assert terminal.end()[0] == 0


def test_a_key_is_named_by_its_id_its_beginning_or_its_ring(keyed):
    """Case S261."""
    first, standby = (key["kid"] for key in keys(keyed))
    for name in (first, first[:8], "es256", "es256:1"):
        plan = keyed.json("keys", "revoke", name, "--reason", "r", "--dry-run")
        assert [each["kid"] for each in plan["changes"] if each["event"] == "key.revoked"] == [
            first
        ]
        plan = keyed.json("keys", "taint", name, "--reason", "r", "--dry-run")
        assert [each["kid"] for each in plan["changes"] if each["event"] == "key.tainted"] == [
            first
        ]
    for name in (standby, standby[:8], "es256", "es256:2"):
        plan = keyed.json(*("keys", "activate", name, "--reason", "r", "--emergency", "--dry-run"))
        assert standby in [each["kid"] for each in plan["changes"]]
    keyed.must("revoke", "--key", first[:8], "--reason", "r", "--yes")
    assert ("operator:", "cut_off.recorded", f"key:{first}") in [
        (actor[:9], action, subject) for actor, action, subject in keyed.audit_records()
    ]


@pytest.mark.parametrize("command", ["revoke", "taint", "activate"])
def test_a_name_that_means_no_key_or_several_is_refused(keyed, command):
    """Case S261."""
    order = ("--reason", "r")
    for named in ("other", "es256:3", "es256:", "rs256:1", ""):
        assert "keys list" in keyed.refused("keys", command, named, *order)
    ids = [key["kid"] for key in keys(keyed)]
    shared = next((a for a in ids[0] if all(kid.startswith(a) for kid in ids)), None)
    if shared:
        assert "begins several" in keyed.refused("keys", command, shared, *order)


def test_what_lists_print_fits_80_columns_and_no_id_is_cut(served):
    """Case S261."""
    served.must("keys", "init")
    served.must("client", "secret", "rotate", "payer", "--end-old-at", "+7d")
    served.must("registration-token", "create", "--expires", "+1d")
    (token,) = served.json("registration-token", "list")
    kids, ids = [key["kid"] for key in keys(served)], [each["id"] for each in secrets(served)]
    whole = {
        ("keys", "list"): kids,
        ("keys", "status"): kids,
        ("client", "list"): ["payer"],
        ("scope", "list"): ["registry/sync/txn/status", "disburse/on-disburse"],
        ("client", "secret", "list", "payer"): ids,
        ("client", "secret", "due"): ids[:1],
        ("registration-token", "list"): [token["id"]],
        ("audit", "search", "--limit", "3"): [token["id"], "registration.token_created"],
        ("keys", "drill"): kids[:1],
        ("keys", "rotate", "--dry-run", "--reason", "some words " * 9): [],
    }
    for listing, named in whole.items():
        with Terminal("--config", served.config, *listing, whole=True) as terminal:
            status, shown = terminal.end()
        assert status == 0
        assert max(map(len, shown.splitlines())) <= COLUMNS
        assert all(each in shown for each in named), listing
