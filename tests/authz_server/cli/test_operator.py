"""``operator``: the people who administer the server."""


def test_an_operator_is_managed_by_commands(stocked):
    """The link is printed once; each record names the way."""
    made = stocked.json("operator", "create", "ada", "--role", "security-officer")
    assert "/enrol/" in made["enrolment"]["link"]
    stocked.must("resource-server", "create", "mapper", *_named("Mapper"))
    printed = stocked.must("operator", "create", "bob")
    assert printed.splitlines()[-1].startswith("http://localhost:8082/enrol/")
    stocked.must(
        *("operator", "update", "bob", "--add-role", "api-owner", "--resource-server", "mapper")
    )
    stocked.must("operator", "update", "bob", "--add-role", "approver")
    shown = stocked.json("operator", "show", "bob")
    assert [(each["role"], each["resource_servers"]) for each in shown["roles"]] == [
        ("api-owner", ["mapper"]),
        ("approver", []),
    ]
    listed = stocked.must("operator", "list")
    assert "api-owner (mapper)" in listed
    assert "api-owner (mapper)" in stocked.must("operator", "show", "bob")
    assert "bob has api-owner (mapper)" in stocked.must(
        "operator", "update", "bob", "--remove-role", "approver"
    )
    assert "has no role" in stocked.must("operator", "update", "bob", "--remove-role", "api-owner")
    stocked.must("operator", "update", "bob", "--role", "auditor", "--organisation", "Own")
    assert "/enrol/" in stocked.must("operator", "enrol", "bob")
    assert "bob is logged out. Sessions: 0." in stocked.must("operator", "log-out", "bob")
    assert "neither an operator nor a session" in stocked.refused("operator", "log-out", "eve")
    assert "disabled" in stocked.must("operator", "disable", "bob")
    assert "is disabled" in stocked.refused("operator", "enrol", "bob")
    assert "enabled" in stocked.must("operator", "enable", "bob")
    stocked.must("operator", "delete", "bob", "--yes")
    actors = {row[0] for row in stocked.audit_records() if row[1].startswith("operator.")}
    assert all(actor.startswith("operator:") and actor.endswith(" via cli") for actor in actors)
    roles = {each["name"]: each["limited"] for each in stocked.json("operator", "roles")}
    assert (roles["api-owner"], roles["security-officer"]) == ("must", "never")
    assert "required" in stocked.must("operator", "roles")


def test_refusals_are_sentences(stocked):
    """The last security officer, an unknown operator, and roles that break a rule."""
    stocked.must("operator", "create", "ada", "--role", "security-officer")
    for verb in ("disable", "delete"):
        more = ("--yes",) if verb == "delete" else ()
        assert "last enabled security officer" in stocked.refused("operator", verb, "ada", *more)
    assert "last enabled" in stocked.refused("operator", "update", "ada", "--role", "auditor")
    assert "operator list" in stocked.refused("operator", "show", "nobody")
    assert "needs the resource servers" in stocked.refused(
        "operator", "create", "bob", "--role", "api-owner"
    )
    assert "Give --role" in stocked.refused("operator", "update", "ada")
    assert "does not have" in stocked.refused(
        "operator", "update", "ada", "--remove-role", "auditor"
    )


def _named(name):
    return ("--name", name, "--identifier", f"urn:test:{name.lower()}")
