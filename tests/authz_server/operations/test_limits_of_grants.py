"""Properties that limit the grants of a client: authorization details and token exchange."""

import pytest

from authz_server.errors import InvalidChangeError
from authz_server.operations.clients import create_client, get_client, update_client
from authz_server.operations.resource_servers import create_resource_server

GRANT = {
    "programmes": ["cash"],
    "currency_code": "KES",
    "payer_fas": ["account:1@bank"],
    "payment_cap": "10.00",
    "batch_cap": "100.00",
    "count": 10,
}
WRONG_GRANTS = {
    "unknown member": {"beneficiaries": 3},
    "no such currency": {"currency_code": "XXX"},
    "no programme": {"programmes": []},
    "amount as number": {"payment_cap": 10},
    "payment above batch": {"payment_cap": "100.01"},
    "too many decimals": {"batch_cap": "100.001"},
    "no count": {"count": 0},
    "no such day": {"not_after": "2030-02-30T00:00:00Z"},
}


def create(operator, **properties):
    return create_client(
        operator.services,
        actor=operator.actor,
        id="payer",
        name="Payer",
        allowed_scopes=["disburse/disburse"],
        properties=properties,
    )


def test_grants_are_stored_as_given(operator):
    created = create(operator, authorization_details_grants={"g2p_disbursement": [GRANT]})
    (grant,) = created.client.properties["authorization_details_grants"]["g2p_disbursement"]
    assert grant == GRANT
    update_client(
        operator.services,
        "payer",
        actor=operator.actor,
        properties={"authorization_details_grants": None},
    )
    assert get_client(operator.services, "payer").properties == {}


@pytest.mark.parametrize("name", WRONG_GRANTS)
def test_a_grant_that_its_type_does_not_accept(shared_operator, name):
    grants = {"g2p_disbursement": [GRANT, GRANT | WRONG_GRANTS[name]]}
    with pytest.raises(InvalidChangeError, match=r"^authorization_details_grants: g2p_disb"):
        create(shared_operator, authorization_details_grants=grants)


def test_a_change_to_a_grant_that_its_type_does_not_accept(operator):
    create(operator)
    for wrong in WRONG_GRANTS.values():
        grants = {"g2p_disbursement": [GRANT, GRANT | wrong]}
        with pytest.raises(InvalidChangeError, match=r"^authorization_details_grants: g2p_disb"):
            update_client(
                operator.services,
                "payer",
                actor=operator.actor,
                properties={"authorization_details_grants": grants},
            )


@pytest.mark.parametrize(
    "grants", [[], "g2p_disbursement", {"g2p_disbursement": GRANT}, {"g2p_disbursement": ["x"]}]
)
def test_grants_of_another_form(shared_operator, grants):
    with pytest.raises(InvalidChangeError, match=r"^authorization_details_grants"):
        create(shared_operator, authorization_details_grants=grants)


def test_a_grant_of_an_unknown_type(shared_operator):
    message = "there is no type 'pension'; there are g2p_disbursement"
    with pytest.raises(InvalidChangeError, match=message):
        create(shared_operator, authorization_details_grants={"pension": [{}]})


def test_an_audience_of_token_exchange_is_a_resource_server(operator):
    policy = {"subjects": ["ministry"], "audiences": ["disburse"]}
    with pytest.raises(InvalidChangeError, match="token_exchange: there is no resource server"):
        create(operator, token_exchange=policy)
    create_resource_server(
        operator.services,
        actor=operator.actor,
        id="disburse",
        name="Payments",
        identifier="https://disburse.example",
        scopes=["disburse/*"],
    )
    stored = create(operator, token_exchange=policy).client.properties["token_exchange"]
    assert {name: list(value) for name, value in stored.items()} == policy


@pytest.mark.parametrize(
    "policy",
    [
        [],
        {"subject": ["ministry"]},
        {"subjects": "*"},
        {"subjects": [""]},
        {"issuers": ["provider"]},
        {"impersonation": "yes"},
    ],
)
def test_a_policy_of_another_form(shared_operator, policy):
    with pytest.raises(InvalidChangeError, match=r"^token_exchange"):
        create(shared_operator, token_exchange=policy)


@pytest.mark.parametrize("party", ["gateway", {}, {"sub": ""}, {"sub": "a", "email": "b"}])
def test_a_party_that_may_act_has_a_subject(shared_operator, party):
    with pytest.raises(InvalidChangeError, match=r"^may_act"):
        create(shared_operator, may_act=party)
