"""The parts for signing keys as a process has them."""

import json
from dataclasses import replace

import pytest

from keys.backend import TracedSignature
from keys.backends.local.sql import LocalBackend


class Logging(LocalBackend):
    """Keeps keys as `sql://` does, and knows which call made a signature."""

    caps = replace(LocalBackend.caps, in_process=False)

    def sign(self, ring, ref, alg, inputs):
        return [TracedSignature(each, "call-1") for each in super().sign(ring, ref, alg, inputs)]


@pytest.fixture
def database_url(sqlite_url):
    """One database is enough: nothing here asks it."""
    return sqlite_url


def test_a_signature_that_shows_readiness_is_recorded(services, settings, tmp_path):
    local = services.key_backends["sql://"]
    services.key_rings._backends["sql://"] = Logging(  # noqa: SLF001 - there is one way to open it
        local._storage,  # noqa: SLF001 - the same keys
        settings.keys.key_encryption_key.reveal(),
        services.clock,
    )
    services.key_rings.refresh()
    assert services.key_rings.why_not_ready("es256") == ""
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    made = [record for record in records if record["event"] == "signature.made"]
    assert [(each["purpose"], each["backend_request_id"]) for each in made] == [
        ("readiness", "call-1")
    ]
