from authz_server.scopes.g2p_connect import CATALOGUE


def test_the_catalogue_comes_in_by_one_command_and_only_once(cli):
    first = cli.json("scope", "import", "g2p-connect")
    second = cli.json("scope", "import", "g2p-connect")
    assert len(first["added"]) == len(second["unchanged"]) == len(CATALOGUE)
    assert second["added"] == second["updated"] == []
    assert [each["name"] for each in cli.json("scope", "list")] == sorted(first["added"])
    assert "mapper.link" in cli.must("scope", "list")


def test_a_scope_is_shown_by_any_spelling(stocked):
    shown = stocked.json("scope", "show", "mapper.link")
    assert (shown["name"], shown["risk"]) == ("mapper/link", "write")
    assert shown["aliases"] == ["mapper.link"]
    assert shown["callback_partner"] == "mapper/on-link"
    assert "on-link" in stocked.must("scope", "show", "mapper/link")


def test_a_scope_of_ones_own_is_added(stocked):
    """Case K124."""
    stocked.must(
        *("scope", "add", "land/read", "--risk", "read", "--lifetime-cap", "300"),
        *("--alias", "land.read", "--description", "Read the land register."),
    )
    shown = stocked.json("scope", "show", "land.read")
    assert (shown["name"], shown["risk"], shown["lifetime_cap_seconds"]) == (
        "land/read",
        "read",
        300,
    )
    assert stocked.audit_records()[-1][1:] == ("scope.added", "land/read")


def test_what_breaks_a_rule_is_refused_in_a_sentence(stocked):
    """Case H98. Case L129."""
    assert "scope" in stocked.refused("scope", "add", "land/*")
    assert "mapper/link" in stocked.refused("scope", "add", "mapper.link")
    assert "risk" in stocked.refused("scope", "add", "land/read", "--risk", "low")
    assert "nobody" in stocked.refused("scope", "add", "land/read", "--resource-server", "nobody")
    assert "scope list" in stocked.refused("scope", "show", "land/read")
    assert "--resource-server" in stocked.refused("scope", "assign", "mapper/link")


def test_the_facts_of_a_scope_are_changed(stocked):
    """By any spelling; the word none takes away what a scope need not have."""
    stocked.must("scope", "add", "land/read", "--alias", "land.read", "--lifetime-cap", "60")
    stocked.must(
        *("scope", "update", "land.read", "--risk", "money", "--description", "Parcels"),
        *("--alias", "land:read", "--callback-partner", "mapper/link"),
    )
    shown = stocked.json("scope", "show", "land/read")
    assert (shown["risk"], shown["description"]) == ("money", "Parcels")
    assert (shown["aliases"], shown["callback_partner"]) == (["land:read"], "mapper/link")
    assert shown["lifetime_cap_seconds"] == 60
    assert stocked.audit_records()[-1][1:] == ("scope.updated", "land/read")
    stocked.must(
        *("scope", "update", "land/read", "--alias", "none", "--lifetime-cap", "none"),
        *("--callback-partner", "none"),
    )
    shown = stocked.json("scope", "show", "land/read")
    assert (shown["aliases"], shown["callback_partner"]) == ([], None)
    assert shown["lifetime_cap_seconds"] is None
    stocked.must("scope", "update", "land/read", "--description", "none")
    assert stocked.json("scope", "show", "land/read")["description"] == "none"
    assert "--help" in stocked.refused("scope", "update", "land/read")
    assert "seconds" in stocked.refused("scope", "update", "land/read", "--lifetime-cap", "x")


def test_a_scope_is_deleted_unless_it_is_in_use(registered):
    """The command asks first; a client that may ask for it is named."""
    registered.must("scope", "add", "land/read", "--alias", "land.read")
    registered.must("scope", "delete", "land.read", "--yes")
    assert "scope list" in registered.refused("scope", "show", "land/read")
    assert registered.audit_records()[-1][1:] == ("scope.deleted", "land/read")
    (used, *_) = registered.json("client", "show", "ministry")["allowed_scopes"]
    assert "ministry" in registered.refused("scope", "delete", used, "--yes")
