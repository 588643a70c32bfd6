import json
from datetime import UTC, datetime

import pytest

from keys.backends.vault.audit_log import AuditLogReader, Use
from keys.backends.vault.policy import VaultPlace

PLACE = VaultPlace("transit", "main", "team/transit", "oidc")
PATH = "team/transit/sign/oidc"


def entry(path=PATH, *, kind="response", data=None, **fields):
    """One line as a Vault writes it, as far as it is looked at."""
    written = {
        "time": "2030-01-02T03:04:05.678901234Z",
        "type": kind,
        "auth": {"display_name": "approle", "metadata": {"role_name": "server"}},
        "request": {"id": "r-1", "path": path, "remote_address": "10.0.0.1"},
        "response": {"data": {"signature": "hmac-sha256:aa"} if data is None else data},
    }
    return json.dumps(written | fields, separators=(",", ":")).encode() + b"\n"


def read(*lines, namespace=""):
    reader = AuditLogReader(frozenset({PLACE}), namespace)
    return list(reader.read(lines)), reader


def test_a_signature_is_found_with_who_made_it():
    (use,), reader = read(entry())
    assert (use.use, use.request_id, use.signatures, use.place) == (Use.SIGNED, "r-1", 1, PLACE)
    assert use.at == datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert (use.identity, use.remote_address) == ("approle server", "10.0.0.1")
    assert (reader.first_at, reader.last_at, reader.entries) == (use.at, use.at, 1)


def test_signatures_in_one_call_are_counted():
    results = [{"signature": "x"}, {"error": "y"}, {"signature": "z"}]
    (use,), _ = read(entry(data={"batch_results": results}))
    assert use.signatures == 2


def test_a_reply_without_content_counts_as_a_signature():
    uses, _ = read(entry(response=None), entry(response={}))
    assert [use.signatures for use in uses] == [1, 1]


@pytest.mark.parametrize(
    "line",
    [
        entry(kind="request"),
        entry(error="permission denied"),
        entry(data={"error": "no such version"}),
        entry(data={"batch_results": [{"error": "no such version"}]}),
        entry("team/transit/sign/other"),
        entry("team/transit/sign/oidc-other"),
        entry("transit/sign/oidc"),
        entry("team/transit/keys/oidc"),
        entry("team/transit/verify/oidc"),
        entry(request={"id": "r-1", "path": PATH, "namespace": {"path": "other/"}}),
        entry(request=None),
    ],
)
def test_what_signed_nothing_of_ours_is_passed_over(line):
    uses, reader = read(line, line)
    assert uses == []
    assert (reader.entries, reader.unreadable) == (2, 0)


@pytest.mark.parametrize(
    ("path", "use"),
    [
        (f"{PATH}/sha2-256", Use.SIGNED),
        ("team/transit/export/signing-key/oidc", Use.TAKEN),
        ("team/transit/export/signing-key/oidc/3", Use.TAKEN),
        ("team/transit/export/encryption-key/oidc", Use.TAKEN),
        ("team/transit/backup/oidc", Use.TAKEN),
    ],
)
def test_every_way_to_use_a_key_is_known(path, use):
    (found,), _ = read(entry(path))
    assert found.use is use


def test_only_its_namespace_counts():
    line = entry(request={"id": "r-1", "path": PATH, "namespace": {"path": "nations/one/"}})
    assert len(read(line, namespace="nations/one")[0]) == 1
    assert read(line)[0] == []
    assert read(entry(), namespace="nations/one")[0] == []


def test_lines_that_cannot_be_read_are_counted():
    broken = (
        b"not json\n",
        b"\n",
        b'["a list"]\n',
        entry(time="yesterday"),
        entry(time=None),
        entry()[:-20],
        b"[" * 100_000 + entry(),
        entry().replace(b'{"', b'{"type":"request","', 1),
    )
    uses, reader = read(*broken, entry())
    assert len(uses) == 1
    assert (reader.unreadable, reader.entries) == (7, 1)
