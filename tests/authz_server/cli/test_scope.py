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
