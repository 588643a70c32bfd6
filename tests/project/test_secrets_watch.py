"""The search for secrets in output, among few of them and among thousands."""

import secrets

import pytest

from support.secrets_watch import SecretsWatch


@pytest.mark.parametrize("others", [0, 2_000])
def test_a_secret_is_found_among_others(others):
    """However many are noted, each is found in any spelling, and nothing else is."""
    watch = SecretsWatch()
    for _ in range(others):
        watch.note(secrets.token_urlsafe(24))
    watch.note("a secret/of words", "password")
    assert watch.find("first\nand a secret/of words here") == ["password in line 2"]
    assert watch.find("a+secret%2Fof+words") == ["password in line 1"]
    assert watch.find("a secret/of wo") == []
