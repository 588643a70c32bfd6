import json

import pytest

CLIENT = '[clients.ministry]\nname = "Ministry"\nallowed_scopes = ["disburse/disburse"]\n'


@pytest.fixture
def file(tmp_path):
    """A declarative file with one client."""
    path = tmp_path / "registrations.toml"
    path.write_text(CLIENT)
    return path


def test_the_plan_shows_each_value_and_marks_money(stocked, file):
    """A new entry has its values, a changed one both, and a removed one its id."""
    assert stocked.must("apply", file, "--yes").splitlines() == [
        "+ client ministry",
        '    name: "Ministry"',
        '    allowed_scopes: ["disburse/disburse"]',
        "    ! grants scopes of risk money: disburse/disburse",
        "Plan: 1 to add, 0 to change, 0 to remove.",
    ]
    file.write_text(CLIENT.replace("disburse/disburse", "mapper/link") + "token_lifetime_seconds=9")
    assert stocked.must("apply", file, "--yes").splitlines() == [
        "~ client ministry",
        "    allowed_scopes: +mapper/link -disburse/disburse",
        "    token_lifetime_seconds: none -> 9",
        "Plan: 0 to add, 1 to change, 0 to remove.",
    ]
    file.write_text("[clients]\n")
    assert stocked.must("apply", file, "--prune", "--yes").splitlines() == [
        "- client ministry",
        "Plan: 0 to add, 0 to change, 1 to remove.",
    ]


def test_the_plan_names_what_becomes_of_earlier_tokens(stocked, file):
    """A file that disables or enables a client has the same effect on its tokens as the commands.

    Case Q226.
    """
    stocked.must("apply", file, "--yes")
    remedy = "      `authz-server revoke --client ministry` ends them permanently"
    file.write_text(CLIENT + "enabled = false\n")
    assert stocked.must("apply", file, "--yes").splitlines()[1:4] == [
        "    enabled: true -> false",
        "    ! its tokens are inactive, and active again when it is enabled before they expire",
        remedy,
    ]
    file.write_text(CLIENT + "enabled = true\n")
    assert stocked.must("apply", file, "--yes").splitlines()[1:4] == [
        "    enabled: false -> true",
        "    ! its earlier tokens are active again until they expire",
        remedy,
    ]


def test_a_folder_stands_for_its_files(stocked, file, tmp_path):
    folder = tmp_path / "registrations"
    folder.mkdir()
    assert stocked.refused("apply", folder, "--yes") == (
        f"Error: The folder {folder} has no file *.toml or *.json.\n"
    )
    (folder / "b.toml").write_text(CLIENT)
    (folder / "a.json").write_text(
        json.dumps({"clients": {"agency": {"name": "A", "allowed_scopes": ["mapper/link"]}}})
    )
    (folder / "README.md").write_text("Of no interest.")
    plan = json.loads(stocked.must("apply", folder, "--dry-run", "--json"))
    assert [change["id"] for change in plan["changes"]] == ["agency", "ministry"]
    assert "the client is in" in stocked.refused("apply", folder, file, "--yes")


def test_a_second_run_changes_nothing_and_asks_nothing(stocked, file):
    """The plan is empty, as text and as JSON."""
    stocked.must("apply", file, "--yes")
    assert "nothing to change" in stocked.must("apply", file)
    assert stocked.json("apply", file)["changes"] == []


def test_where_nothing_can_be_asked_the_plan_is_shown_alone(stocked, file):
    """A script has to agree with --yes."""
    result = stocked.run("apply", file)
    assert result.exit_code == 2
    assert "Use --yes" in result.stderr
    assert stocked.json("client", "list") == []


def test_a_refusal_is_one_sentence_with_the_place(stocked, file):
    """The file, the line, the entry and the member are named."""
    file.write_text(f"\n{CLIENT}colour = 1\n")
    sentence = stocked.refused("apply", file, "--yes")
    assert f'{file}:2: clients."ministry": Object contains unknown field' in sentence
    assert "No such file" in stocked.refused("apply", file.with_name("none.toml"), "--yes")


def test_text_in_a_plan_does_not_act_on_the_terminal(stocked, file):
    """Control characters in a value are escaped."""
    file.write_text(CLIENT + r'properties.jwks.keys = ["\u001b[2J\u202e"]')
    result = stocked.run("apply", file, "--dry-run")
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output


def test_an_export_is_written_to_a_file_and_read_back(stocked, file, tmp_path):
    """Both formats are applied without a change."""
    stocked.must("apply", file, "--yes")
    for form in ("toml", "json"):
        path = tmp_path / f"exported.{form}"
        assert stocked.must("export", "--format", form, "--output", path) == ""
        assert stocked.json("apply", path, "--prune", "--yes")["changes"] == []
        assert path.read_text() == stocked.must("export", "--format", form)
    assert json.loads(path.read_text())["clients"].keys() == {"ministry"}


def test_secrets_are_in_the_folder_and_in_no_output(stocked, file, tmp_path):
    """The client authenticates with the written secret; a record names the operator."""
    result = stocked.run("apply", file, "--yes", "--secret-directory", tmp_path / "secrets")
    secret = (tmp_path / "secrets" / "ministry").read_text().strip()
    assert len(secret) == 43
    assert secret not in result.output
    assert stocked.audit_records()[-1][1] == "declaration.applied"
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    (applied,) = [each for each in map(json.loads, lines) if each["event"] == "declaration.applied"]
    assert (applied["files"], applied["added"]) == ([str(file)], 1)
