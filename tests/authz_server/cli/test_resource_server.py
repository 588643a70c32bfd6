def _create(cli, *options):
    return cli.json(
        *("resource-server", "create", "mapper", "--name", "Mapper"),
        *("--identifier", "https://mapper.example", *options),
    )


def test_a_resource_server_owns_the_scopes_of_its_branch(stocked):
    """Case H88."""
    created = _create(stocked, "--scope", "mapper/*")
    assert len(created["scopes"]) == 15
    shown = stocked.json("resource-server", "show", "mapper")
    assert shown["scopes"] == sorted(created["scopes"])
    assert shown["identifier"] == "https://mapper.example"
    assert created["secret"] not in stocked.must("resource-server", "show", "mapper")
    owned = stocked.json("scope", "list", "--resource-server", "mapper")
    assert len(owned) == 15


def test_resource_server_may_send_its_secret_by_either_method_unless_one_is_named(stocked):
    """Case A7."""
    _create(stocked)
    shown = stocked.json("resource-server", "show", "mapper")
    assert shown["authentication_method"] == "client_secret"
    for method in ("client_secret_basic", "client_secret_post", "client_secret"):
        stocked.must("resource-server", "update", "mapper", "--authentication-method", method)
        shown = stocked.json("resource-server", "show", "mapper")
        assert shown["authentication_method"] == method
    text = " ".join(stocked.must("resource-server", "create", "--help").split())
    assert "[default: client_secret]" in text


def test_scopes_change_owner_only_when_told_to(stocked):
    _create(stocked, "--scope", "mapper/link")
    other = ("resource-server", "create", "other", "--name", "Other", "--no-secret")
    other = (*other, "--identifier", "https://other.example", "--scope", "mapper/link")
    assert "belongs to mapper" in stocked.refused(*other)
    assert [each["id"] for each in stocked.json("resource-server", "list")] == ["mapper"]
    stocked.must(*other, "--take-over")
    assert stocked.json("resource-server", "show", "mapper")["scopes"] == []
    assert "belongs to other" in stocked.refused(
        "scope", "assign", "mapper/link", "--resource-server", "mapper"
    )
    stocked.must("scope", "assign", "mapper/link", "--resource-server", "mapper", "--take-over")
    assert stocked.json("scope", "show", "mapper.link")["resource_server"] == "mapper"
    stocked.must("scope", "assign", "mapper/link", "--none")
    assert stocked.json("scope", "show", "mapper/link")["resource_server"] is None


def test_an_update_changes_what_is_named(stocked):
    _create(stocked)
    stocked.must(
        *("resource-server", "update", "mapper", "--name", "Mapper 2"),
        *("--token-format", "reference", "--permission", "introspect:any"),
    )
    stocked.must("resource-server", "update", "mapper", "--signing-ring", "es256")
    shown = stocked.json("resource-server", "show", "mapper")
    assert (shown["name"], shown["token_format"]) == ("Mapper 2", "reference")
    assert (shown["signing_ring"], shown["permissions"]) == ("es256", ["introspect:any"])
    stocked.must("resource-server", "update", "mapper", "--signing-ring", "none")
    assert stocked.json("resource-server", "show", "mapper")["signing_ring"] is None


def test_what_breaks_a_rule_is_refused_in_a_sentence(stocked):
    """Case H98. Case L129."""
    base = ("resource-server", "create", "mapper", "--name", "Mapper", "--identifier")
    assert "identifier" in stocked.refused(*base, "http://mapper.example")
    assert "signing_ring" in stocked.refused(
        *base, "https://mapper.example", "--signing-ring", "es512"
    )
    assert "no scope" in stocked.refused(*base, "https://mapper.example", "--scope", "mapper/none")
    assert stocked.json("resource-server", "list") == []


def test_the_nouns_do_not_reach_into_each_other(stocked):
    _create(stocked)
    for command in (("show",), ("disable",), ("delete", "--yes"), ("secret", "add")):
        assert "no client 'mapper'" in stocked.refused("client", *command, "mapper")
    assert stocked.json("resource-server", "show", "mapper")["state"] == "enabled"


def test_a_resource_server_has_secrets_like_a_client(stocked):
    """Case A12."""
    first = _create(stocked)["secret_id"]
    second = stocked.json("resource-server", "secret", "add", "mapper")["secret_id"]
    stocked.must("resource-server", "secret", "end", "mapper", first)
    listed = stocked.json("resource-server", "secret", "list", "mapper")
    assert {each["id"]: each["works"] for each in listed} == {first: False, second: True}
