"""Initial access tokens whose scopes need a second person."""

from support.approval_site import MONEY

UNTIL = "2040-01-01T00:00:00Z"


def _spend(site, value: str) -> tuple[str, ...] | None:
    with site.services.transaction() as session:
        grantor = site.services.initial_tokens.spend(session, value)
    return None if grantor is None else grantor.scopes


def _fingerprint(site) -> str | None:
    with site.services.transaction() as session:
        (token,) = site.services.initial_tokens.list_all(session)
        return token.pepper_fingerprint


def test_a_token_for_payments_works_once_a_second_person_has_approved(approvals):
    """As the grant of the scope to a client does."""
    body = {"expires_at": UNTIL, "scopes": [MONEY]}
    api = approvals.api
    answer = api.send("POST", "/registration-tokens", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json["acts"] == ["scope.grant_money"]
    value = answer.json["answer"]["value"]
    assert _spend(api, value) is None
    assert approvals.decide(answer.json["id"], "approve").status_code == 200
    # The pepper may have been replaced since the token was made: a use proves it.
    assert _fingerprint(api) is None
    assert _spend(api, value) == (MONEY,)
    assert _fingerprint(api) == api.services.secrets.fingerprint
    administrative = {**body, "scopes": ["clients:read"]}
    answer = api.send("POST", "/registration-tokens", json=administrative)
    assert answer.json["acts"] == ["operator.change_role"]
