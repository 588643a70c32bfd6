"""Commands that run on the server's machine and then with ``--server``, and print the same."""

import json
import re

from click.testing import Result

from support.remote_site import RemoteSite

#: The files of each way, by the end of their names.
FILES = {
    ".toml": """
[scopes."crops/{n}"]
risk = "read"

[resource_servers.crops-{n}]
name = "Crops"
identifier = "https://crops-{n}.example"
scopes = ["crops/{n}"]

[clients.farm-{n}]
name = "Farm"
allowed_scopes = ["crops/{n}"]
expires_at = 2040-01-31T12:00:00+02:00

[clients.{n}]
name = "Ministry"
allowed_scopes = ["land/{n}", "mapper/link"]
starts_at = 2030-01-31T12:00:00Z
""",
    "-pays.toml": """
[clients.{n}]
name = "Ministry"
allowed_scopes = ["disburse/disburse"]
""",
    ".csv": "id,name,allowed_scopes\nfrom-{n},Csv,mapper/link\n",
    ".json": """{{"realm": "r", "clients": [
{{"clientId": "from-{n}", "serviceAccountsEnabled": true, "secret": "a-secret-of-{n}-0123456789"}}
]}}""",
}
#: What is different each time: ids, secrets and key ids; times; how long a step took; counts.
VARIABLE = (
    (re.compile(r"(?<![\w-])(?:[\w-]{43}|(?=[\w-]*\d)[\w-]{16,}|[0-9a-f]{8,})(?![\w-])"), "ID"),
    (re.compile(r'"age_seconds": \d+'), "AGE"),
    # The server stores records of its own meanwhile.
    (re.compile(r'"unread": \d+'), "UNREAD"),
    (re.compile(r"\d+ (stored )?records (of|in) \d+ (processes|blocks?)[^\n]*"), "RECORDS"),
    (re.compile(r"NOTE \d+ records? [^\n]* yet\.\n"), ""),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)?"), "TIME"),
    (re.compile(r"\d+\.\d+"), "SECONDS"),
    (re.compile(r"operator:\w+ via cli|client:first via api"), "ACTOR"),
    (re.compile(r"local|there"), "NAME"),
    # The width of a column depends on them.
    (re.compile(r"[ ─]{2,}"), "  "),
)


def plain(text: str) -> str:
    for pattern, name in VARIABLE:
        text = pattern.sub(name, text)
    return text


def filled(site: RemoteSite, words: str, name: str) -> list[str]:
    """Return the words of a case, with the ids of this way."""
    values = {"n": name, "folder": site.folder}
    if "{secret}" in words:
        noun, owner = re.match(r"(\S+) secret end (\S+)", words).groups()
        values["secret"] = first_of(site, noun, "secret", "list", owner.format(n=name))["id"]
    if "{change}" in words:
        values["change"] = first_of(site, "changes", "list")["id"]
    if "{token}" in words:
        values["token"] = first_of(site, "registration-token", "list")["id"]
    return words.format(**values).split(" ")


def first_of(site: RemoteSite, *words: str) -> dict:
    return json.loads(site.local(*words, "--json").stdout)[0]


def run(site: RemoteSite, case: str, name: str) -> Result:
    """Run a case on one way; a second person decides."""
    words, _, read = case.partition(" < ")
    decides = words.startswith("changes confirm")
    given = filled(site, words, name)
    if name == "local":
        actor = ("--actor", "second") if decides else ()
        return site.local(*actor, *given, input=read or None)
    if "--before now" in words:
        site.renew_tokens()
    token = site.token("second") if decides else site.token()
    return site.remote(*given, input=read or None, token=token)


def find_differences(site: RemoteSite, cases: str) -> dict[str, str]:
    """Run the cases in their order, each here and then at the server.

    Returns:
        the output on both ways of each case that fails, or whose output differs.
    """
    for name in ("local", "there"):
        for end, text in FILES.items():
            (site.folder / f"{name}{end}").write_text(text.format(n=name), encoding="utf-8")
    different = {}
    for case in cases.strip().splitlines():
        results = [run(site, case, name) for name in ("local", "there")]
        seen = [(each.exit_code, plain(each.stdout), plain(each.stderr)) for each in results]
        if results[0].exit_code or seen[0] != seen[1]:
            different[case] = "\n".join((case, *(each.output for each in results)))
    return different
