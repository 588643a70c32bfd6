import json

from sqlalchemy import create_engine, inspect, select, table, text

from keys.backends.vault.policy import VaultRole


def content(cli):
    """Every row of every table, without the ends of audit files: each command records itself."""
    engine = create_engine(cli.database_url)
    names = set(inspect(engine).get_table_names()) - {"audit_writer"}
    with engine.connect() as connection:
        rows = {
            name: sorted(map(repr, connection.execute(select(text("*")).select_from(table(name)))))
            for name in names
        }
    engine.dispose()
    return rows


def test_a_drill_changes_nothing(cli):
    """Case G83."""
    cli.must("keys", "init")
    before = content(cli)
    (record,) = cli.json("keys", "drill")
    assert content(cli) == before
    assert [step["step"] for step in record["steps"]] == [
        *("read the rings", "plan", "the standby signs", "write, and roll back"),
    ]
    assert all(step["works"] for step in record["steps"])
    assert record["would_fail"] == []
    assert record["kid"] == cli.json("keys", "list")[0]["kid"]
    assert record["standby"] == cli.json("keys", "list")[1]["kid"]
    expected = record["expected"]
    assert 0 < expected["revoked_after_seconds"] < 30
    assert expected["every_node_refuses_after_seconds"] > 5
    # The standby was published a moment ago.
    assert any("do not know it yet" in doubt for doubt in record["doubts"])
    assert "Nothing was changed." in cli.must("keys", "drill", "es256")


def test_a_drill_without_a_standby_says_what_would_fail(cli):
    cli.must("keys", "init")
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM key_event"))
        connection.execute(text("DELETE FROM signing_key WHERE version = 2"))
        connection.execute(text("DELETE FROM encrypted_private_key WHERE version = 2"))
    engine.dispose()
    result = cli.run("keys", "drill", "--json")
    assert result.exit_code == 1
    (record,) = json.loads(result.stdout)
    assert any("--all-versions" in each for each in record["would_fail"])


def test_the_standby_signs_in_the_vault_and_that_is_accounted_for(cli, installation):
    before, shown = (
        content(cli),
        installation.admin.read_key("oidc-es256", mount=installation.mount),
    )
    (record,) = cli.json("keys", "drill")
    assert all(step["works"] for step in record["steps"])
    assert "the right to fence" in [step["step"] for step in record["steps"]]
    assert content(cli) == before
    assert installation.admin.read_key("oidc-es256", mount=installation.mount) == shown
    recorded = (installation.directory / "audit.jsonl").read_text()
    assert recorded.count('"purpose":"drill"') == 1


def test_a_fence_that_would_be_refused_is_told_without_trying(cli, installation):
    name = installation.write_policy(VaultRole.ROTATOR)
    held = installation.admin.client.sys.read_acl_policy(name)["data"]["policy"]
    narrow = held.replace("keys/oidc-es256/config", "keys/other/config")
    installation.admin.write_policy(name, narrow)
    result = cli.run("keys", "drill", "--json")
    assert result.exit_code == 1
    (record,) = json.loads(result.stdout)
    assert [each.split(":")[0] for each in record["would_fail"]] == ["the right to fence"]


def test_a_vault_that_is_away_is_what_would_fail(cli, installation):
    installation.address = "http://127.0.0.1:9"
    cli.config = installation.settings(cli.database_url)
    result = cli.run("keys", "drill")
    assert result.exit_code == 1
    assert "WOULD FAIL  the standby signs" in result.stdout
    assert "ok          write, and roll back" in result.stdout
