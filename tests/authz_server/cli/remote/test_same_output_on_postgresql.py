"""The changes of ``--server`` on PostgreSQL, with locks and types of its own."""

from collections.abc import Iterator

import pytest

from support.both_ways import find_differences
from support.databases import copied_database
from support.remote_site import RemoteSite, running_remote_site

#: The changes that matter, each kind once.
CASES = """
scope import g2p-connect
scope add land/{n} --risk read --alias land.{n}
resource-server create {n}-api --name API --identifier https://{n}.example --scope land/{n}
resource-server secret rotate {n}-api --end-old-at 2040-01-01 --json
client create {n} --name Ministry --scope land/{n} --scope mapper/link
client update {n} --lifetime 300 --expires 2040-01-01 --set sender_id={n}
client secret rotate {n} --end-old-when-unused 7d
client secret add {n} --description due --expires +20d
client secret due
client disable {n} --revoke
client enable {n}
client list --scope mapper.link --sort last-used --count
revoke --scope land/{n} --before 2020-01-01 --yes --json
stop client {n} --reason leak --yes --json
stop lift client {n} --reason over --json
changes confirm {change} --reason seen
keys rotate {n} --yes
keys activate {n} --emergency --reason now
keys tick {n}
keys revoke {n} --reason leaked --all-versions --yes --json
keys destroy {n} --reason purge
operator create {n} --role auditor --role approver
operator update {n} --remove-role approver --json
event-stream set {n}-api --poll --event stopped --json
registration-token create --scope mapper/link --uses 2 --json
apply {folder}/{n}-pays.toml --dry-run
apply {folder}/{n}.toml --yes --secret-directory {folder}/secrets-{n} --json
apply {folder}/{n}.toml
export --format json
audit who --scope mapper/link --at 2026-01-01T00:00:00Z
audit verify
client delete {n} --yes
"""


@pytest.fixture(scope="module")
def site(request, tmp_path_factory) -> Iterator[RemoteSite]:
    """A server on PostgreSQL for this file."""
    folder = tmp_path_factory.mktemp("remote")
    with (
        copied_database(request, "postgresql", folder) as url,
        running_remote_site(folder, url) as site,
    ):
        yield site


def test_changes_print_the_same_here_and_there(site):
    """Each case runs on the server's machine, and then by the admin API."""
    different = find_differences(site, CASES)
    assert not different, "\n\n".join(different.values())
