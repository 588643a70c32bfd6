"""Settings of approvals."""

import pytest

from support.minimal_settings import load, refusal


@pytest.mark.parametrize("deciders", ["[]", '["client", "client"]', '["command"]', '"client"'])
def test_deciders_that_cannot_be_used_are_refused(tmp_path, deciders):
    """None would leave nobody who approves."""
    found = refusal(tmp_path, more=f"[approvals]\ndeciders = {deciders}").key
    assert found.split("[")[0] == "approvals.deciders"


def test_every_identity_decides_by_default(tmp_path):
    """Settings leave some out."""
    assert load(tmp_path).approvals.deciders == ("local", "provider", "client")
    settings = load(tmp_path, more='[approvals]\ndeciders = ["provider"]')
    assert settings.approvals.deciders == ("provider",)
