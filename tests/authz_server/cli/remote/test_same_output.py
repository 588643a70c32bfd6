"""With ``--server``, every command prints what it prints on the server's machine."""

import re
from urllib.parse import quote

import pytest

from authz_server.admin.router import Router
from authz_server.admin.routes import PREFIX, ROUTES
from authz_server.cli.remote.api import AdminApi
from support.both_ways import find_differences
from support.remote_site import remote_commands
from support.source_tree import ROOT

#: The commands, each with its arguments; `{n}` is an id for each way, and `<` what it reads.
CASES = """
scope import g2p-connect
scope import g2p-connect --json
scope add land/{n} --risk read --alias land.{n}
scope list
scope list --json
scope show land.local
scope show land.local --json
resource-server create {n}-api --name API --identifier https://{n}.example --scope land/{n}
resource-server create --name API --identifier https://two-{n}.example --no-secret --json
resource-server list
resource-server list --json
resource-server show local-api
resource-server show local-api --json
resource-server update {n}-api --name Land --signing-ring none
resource-server disable {n}-api
resource-server enable {n}-api
resource-server secret add {n}-api --description spare --expires 2040-01-01
resource-server secret list {n}-api
resource-server secret rotate {n}-api --end-old-at 2040-01-01 --json
resource-server secret end {n}-api {secret}
scope assign land/{n} --none
scope assign land/{n} --resource-server {n}-api
scope add unused/{n}
scope update land/{n} --description Parcels --lifetime-cap 600 --alias land.{n}
scope update land.{n} --lifetime-cap none
scope delete unused/{n} --yes
client create {n} --name Ministry --scope land/{n} --scope mapper/link
client create --name Office --scope mapper/link --secret-stdin --json < a-secret-of-the-office-5281
client create --name Office --scope mapper/link --no-secret --authentication-method private_key_jwt
client list
client list --json
client list ministry --sort name --descending --limit 1 --page 2
client list --scope mapper.link --sort last-used --columns id,last_used_at
client list --count
client show local
client show local --json
client update {n} --lifetime 300 --expires 2040-01-01 --set sender_id={n}
client update {n} --lifetime none --expires none --set sender_id=none
client disable {n} --revoke
client enable {n}
client secret add {n} --description spare --json
client secret list {n}
client secret list local --json
client secret add {n} --description due --expires +20d
client secret due --within 30d
client secret due --json
resource-server secret due --within 30d --json
client secret rotate {n} --end-old-when-unused 7d
client secret end {n} {secret} --at 2040-01-01
explain request local --scope mapper/link
explain request local --scope mapper/link --json
explain token --for local-api < not.a.token
explain token --for local-api --json < not.a.token
token revoke --jti {n}-0123456789
token revoke --jti {n}-0123456789 --json
revoke --client {n} --yes
revoke --scope land/{n} --before 2020-01-01 --yes --json
stop define prog-{n} --scope land/{n} --client {n}
stop define prog-{n} --scope land/{n} --client {n} --json
stop programmes
stop programmes --json
stop scope land.{n} --reason leak --yes
stop client {n} --reason leak --yes --json
stop resource-server {n}-api --reason leak --yes
stop programme prog-{n} --reason leak --yes
stop list
stop list --json
stop lift scope land.{n} --reason over
stop lift client {n} --reason over --json
stop lift resource-server {n}-api --reason over
stop lift programme prog-{n} --reason over
stop undefine prog-{n}
keys list
keys list --json
keys status
keys status local --json
keys status local --svg {folder}/{n}.svg --html {folder}/{n}.html
keys rotate {n} --yes --dry-run
keys rotate {n} --yes
keys freeze {n} --reason audit
keys unfreeze {n} --reason over --json
keys activate {n} --emergency --reason now
keys rotate {n} --yes --json
keys activate {n} --emergency --reason now --dry-run --json
keys tick {n}
keys tick --quiet
keys tick {n} --dry-run --json
keys prune {n}
keys prune --dry-run --json
keys move {n} --to es256 --reason plan --at +90d --dry-run
keys move {n} --to es256 --reason plan --dry-run --json
keys taint {n} --reason lost --yes
keys revoke {n} --reason leaked --all-versions --yes --dry-run
keys revoke {n} --reason leaked --all-versions --yes --json
keys destroy {n} --reason purge --dry-run --json
keys destroy {n} --reason purge
changes list
changes list --all --json
changes show {change} --json
changes show {change}
changes confirm {change} --reason seen
operator create {n} --role auditor --role approver
operator create two-{n} --json
operator list
operator list --json
operator show local
operator show local --json
operator update {n} --add-role auditor --organisation Treasury
operator update {n} --remove-role approver --json
operator disable {n}
operator enable {n}
operator enrol {n} --json
operator log-out {n}
operator log-out {n} --json
operator passkey list local
operator passkey list local --json
operator delete {n} --yes
operator roles
operator roles --json
audit search --limit 3
audit search --client local --limit 2 --json
audit export --subject local --format jsonl
audit who --scope mapper/link --at 2026-01-01T00:00:00Z
audit who --scope mapper/link --at 2026-01-01T00:00:00Z --json
audit verify
report least-privilege
report least-privilege --days 7 --json
report owners
report owners --json
event-stream set {n}-api --poll
event-stream set {n}-api --poll --event stopped --json
event-stream list
event-stream show local-api --json
event-stream show local-api --undelivered
event-stream retry {n}-api
event-stream delete {n}-api --yes
registration-token create --scope mapper/link --uses 2 --json
registration-token create --scope mapper/link --organisation Treasury
registration-token list
registration-token end {token}
export
export --format json
apply {folder}/{n}-pays.toml --dry-run
apply {folder}/{n}.toml --dry-run
apply {folder}/{n}.toml --yes --secret-directory {folder}/secrets-{n}
apply {folder}/{n}.toml
apply {folder}/{n}.toml --dry-run --json
import csv {folder}/{n}.csv
import keycloak {folder}/{n}.json --format json
resource-server delete {n}-api --yes
client delete {n} --yes
revoke --before now --reason all --yes --json
"""


@pytest.fixture
def asked(monkeypatch) -> set[tuple[str, str, str]]:
    """The method, the path and the permission of each request to the API."""
    seen: set[tuple[str, str, str]] = set()
    send = AdminApi._send  # noqa: SLF001 - where every request passes

    def note(self, method, permission, path, *rest):
        place = "/".join(quote(each, safe="") for each in path)
        seen.add((method, f"{PREFIX}/{place}", permission))
        return send(self, method, permission, path, *rest)

    monkeypatch.setattr(AdminApi, "_send", note)
    return seen


def test_every_command_prints_the_same_here_and_there(site, asked):
    """The commands run in the order of the table, each here and then at the server.

    Each request names the permission of its route, which a client then asks for.
    """
    different = find_differences(site, CASES)
    assert not different, "\n\n".join(different.values())
    router = Router(ROUTES)
    assert len(asked) > 80
    wrong = {
        each
        for each in asked
        if router.find(*each[:2])[0].permission not in (each[2].split() or [""])
    }
    assert wrong == set()


def test_the_table_has_every_command_that_works_at_a_server():
    """Those that decide on a change that waits, or need a passkey, are tried beside it."""
    cases = CASES.strip().splitlines()
    tried = {
        name for name in remote_commands() for case in cases if f"{case} ".startswith(f"{name} ")
    }
    decisions = {"changes approve", "changes break-glass", "changes reject", "changes withdraw"}
    assert remote_commands() - tried == decisions | {"operator passkey remove"}


def test_the_document_names_them():
    text = (ROOT / "docs" / "administration.md").read_text(encoding="utf-8")
    _, _, section = text.partition("\n## From another machine\n")
    table, _, _ = section.partition("\n## ")
    rows = re.findall(r"^\| `([a-z -]+)` \| ([^|]*) \|", table, re.MULTILINE)
    named = {
        f"{noun} {verb}".strip() for noun, verbs in rows for verb in re.findall(r"`([^`]+)`", verbs)
    } | {noun for noun, verbs in rows if "`" not in verbs}
    assert named == remote_commands()
