"""The table of DPoP: proofs are signed by asymmetric algorithms, within short times."""

import pytest

from authz_server.settings import DPoPSettings
from support.minimal_settings import load, refusal

TABLE = "[dpop]\n"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("algorithms = []", "algorithms"),
        ("algorithms = ['HS256']", "algorithms[0]"),
        ("algorithms = ['ES256', 'none']", "algorithms[1]"),
        ("maximum_proof_age_seconds = 4", "maximum_proof_age_seconds"),
        ("maximum_proof_age_seconds = 601", "maximum_proof_age_seconds"),
        ("nonce = 'optional'", "nonce"),
        ("nonce_lifetime_seconds = 0", "nonce_lifetime_seconds"),
        ("enabled = 'no'", "enabled"),
        ("jti = true", "jti"),
    ],
)
def test_what_would_weaken_proofs_is_refused(tmp_path, more, key):
    """Case L129."""
    assert refusal(tmp_path, more=TABLE + more).key == f"dpop.{key}"


def test_proofs_are_optional_and_without_nonces_by_default(tmp_path):
    assert load(tmp_path).dpop == DPoPSettings()
    assert (DPoPSettings().enabled, DPoPSettings().nonce) == (True, "off")
