"""Clients of a CSV file, as spreadsheets write them."""

import json
import tomllib

import pytest
from click.testing import CliRunner

from authz_server.cli.root import main


def run(*arguments):
    """Run the import of a file; its result."""
    return CliRunner().invoke(main, ["import", "csv", *map(str, arguments)])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["", "sep=;\r\n", "\r\n\r\n"])
def test_a_file_of_a_spreadsheet_becomes_a_file(tmp_path, encoding, first):
    """Its encodings, its line that names the delimiter, and columns that it adds."""
    lines = (
        "client_id;client_name;organization;scope;;\r\n"
        'partner;"شريك ""الدفع""";وزارة;mapper/link,mapper/resolve;;\r\n'
        'other;Secours\u00a0: aide;L\u2019\u202fEau;"mapper/link\nmapper/resolve";;;;\r\n'
    )
    (tmp_path / "clients.csv").write_bytes((first + lines).encode(encoding))
    result = run(tmp_path / "clients.csv")
    assert "the header" not in result.stderr
    made = tomllib.loads(result.stdout)["clients"]
    assert made["partner"]["name"] == 'شريك "الدفع"'
    assert made["partner"]["organisation"] == "وزارة"
    names = made["other"]["name"], made["other"]["organisation"]
    assert names == ("Secours : aide", "L\u2019 Eau")
    for each in made.values():
        assert each["allowed_scopes"] == ["mapper/link", "mapper/resolve"]


def test_a_name_of_several_lines_is_reported_and_not_kept(tmp_path):
    """A spreadsheet quotes line breaks, and a single such cell would refuse the whole file."""
    (tmp_path / "clients.csv").write_text('id,name\nalpha,"A\nB"\nbeta,B\u202eC\ngamma,=1+1\n')
    result = run(tmp_path / "clients.csv")
    assert "alpha: its id becomes its name: name: control" in result.stderr
    assert "beta: its id becomes its name: name: control" in result.stderr
    made = tomllib.loads(result.stdout)["clients"]
    assert [each["name"] for each in made.values()] == ["alpha", "beta", "=1+1"]


def test_clients_of_a_csv_file_become_a_file(stocked, tmp_path):
    """Names of RFC 7591 are known; scopes that are not shipped are declared."""
    source, made = tmp_path / "clients.csv", tmp_path / "made.json"
    source.write_text(
        "﻿client_id;client_name;scope;expires_at;enabled;token_lifetime_seconds;client_secret;Colour\n"
        'alpha;"A; B";mapper.link own/thing;2030-01-01;no;60;a secret of old;red\n'
        "\n"
        "!;x;;;;;;\n"
        "beta;;;;;;;\n"
    )
    result = run(source, "--format", "json", "--output", made)
    assert f"{source}:4: left out: id: use 3 to 128" in result.stderr
    assert "the header: the column 'colour' does not carry over" in result.stderr
    assert json.loads(made.read_text())["clients"] == {
        "alpha": {
            "name": "A; B",
            "allowed_scopes": ["mapper/link", "own/thing"],
            "token_lifetime_seconds": 60,
            "expires_at": "2030-01-01T00:00:00Z",
            "enabled": False,
        },
        "beta": {"name": "beta", "allowed_scopes": []},
    }
    stocked.must("apply", made, "--yes")
    assert stocked.json("apply", made, "--yes")["changes"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nx\n", "clients.csv:1: the header has no column id"),
        ("id,client_id\n", "clients.csv:1: two columns are id"),
        ("id,name\nabc,d,e\n", "clients.csv:2: it has more fields than the header"),
        ("sep=|\n\nid|name\nabc|d|e\n", "clients.csv:4: it has more fields than the header"),
        ("id,,name\nabc,d,e\n", "clients.csv:2: it has a field in a column without a name"),
        ("\n\nname\n", "clients.csv:3: the header has no column id"),
        ("id,enabled\nabc,perhaps\n", "clients.csv:2: enabled: use true or false"),
        ("id,expires_at\nabc,soon\n", "clients.csv:2: expires_at: use a time"),
        ("id,expires_at\nabc,0001-01-01T00:00:00+23:00\n", "clients.csv:2: expires_at: use a time"),
        ("id,token_lifetime_seconds\nabc,\u0661\n", "clients.csv:2: token_lifetime_seconds"),
        ('id,name\nabc,"d', "it is not CSV"),
        ("id,name\nabc," + "d" * 200_000, "it is not CSV"),
        ("", "the header has no column id"),
    ],
)
def test_a_csv_file_is_refused_with_its_line(tmp_path, text, message):
    """One sentence, and nothing on standard output."""
    (tmp_path / "clients.csv").write_text(text)
    result = run(tmp_path / "clients.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Something unexpected" not in result.stderr


def test_the_characters_of_a_secret_are_kept(tmp_path):
    """Other columns have plain blanks; a column that does not carry over is reported once."""
    source, folder = tmp_path / "clients.csv", tmp_path / "secrets"
    secret = "\u00a032 characters\u00a0or more\u2007of a\u202fclient"
    source.write_text(f"id,name,secret,note,note\nalpha,A\u00a0B,{secret},x,y\n", "utf-8")
    result = run(source, "--secret-directory", folder)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("the column 'note' does not carry over") == 1
    assert 'name = "A B"' in result.stdout
    (written,) = folder.iterdir()
    assert written.read_text("utf-8").rstrip("\n") == secret
