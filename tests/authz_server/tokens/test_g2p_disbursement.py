"""Limits of payments: what is granted is within the grant, for any request and any grant."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_server.tokens.currencies import DECIMALS
from authz_server.tokens.g2p_disbursement import G2PDisbursement

TYPE = G2PDisbursement()
PROGRAMMES = ("cash", "meals", "pensions")
PAYERS = ("account:1@bank", "account:2@bank", "Account:1@BANK")
CURRENCIES = ("KES", "JPY", "BHD")
INSTANTS = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+03:00", "2030-01-01T00:00:00Z")

amounts = st.builds(
    lambda whole, decimals, places: f"{whole}.{decimals:03}"[: -(3 - places) or None].rstrip("."),
    st.integers(0, 200),
    st.integers(0, 999),
    st.integers(0, 3),
)
windows = {"not_before": st.sampled_from(INSTANTS), "not_after": st.sampled_from(INSTANTS)}
details = st.fixed_dictionaries(
    {"programme": st.sampled_from(PROGRAMMES), "currency_code": st.sampled_from(CURRENCIES)},
    optional={
        "payer_fa": st.sampled_from(PAYERS),
        "payment_cap": amounts,
        "batch_cap": amounts,
        "count": st.integers(1, 20),
        **windows,
    },
)
grants = st.fixed_dictionaries(
    {
        "programmes": st.lists(st.sampled_from(PROGRAMMES), min_size=1, unique=True),
        "currency_code": st.sampled_from(CURRENCIES),
        "payer_fas": st.lists(st.sampled_from(PAYERS), min_size=1, max_size=2, unique=True),
        "payment_cap": amounts,
        "batch_cap": amounts,
        "count": st.integers(1, 20),
    },
    optional=windows,
)


@given(details, grants)
def test_what_is_granted_is_within_the_grant(detail, grant):
    try:
        TYPE.check_grant(grant)
        granted = TYPE.find_granted(detail, grant)
    except ValueError:
        return
    if granted is None:
        return
    assert granted["programme"] == detail["programme"]
    assert granted["programme"] in grant["programmes"]
    assert granted["payer_fa"] in grant["payer_fas"]
    assert granted["currency_code"] == grant["currency_code"] == detail["currency_code"]
    for name in ("payment_cap", "batch_cap"):
        assert 0 < Decimal(granted[name]) <= Decimal(grant[name])
        assert Decimal(granted[name]) <= Decimal(detail.get(name, grant[name]))
    assert Decimal(granted["payment_cap"]) <= Decimal(granted["batch_cap"])
    assert granted["count"] == detail.get("count", grant["count"]) <= grant["count"]
    limits, window = TYPE.window(grant), TYPE.window(granted)
    assert window.not_before >= limits.not_before
    assert 0 < window.not_after <= limits.not_after or not limits.not_after
    # What was granted is covered by the grant as it is.
    assert TYPE.find_granted(granted, grant) == granted


GRANT = {
    "programmes": ["cash"],
    "currency_code": "KES",
    "payer_fas": ["account:1@bank", "account:2@bank"],
    "payment_cap": "5000",
    "batch_cap": "100000",
    "count": 10,
}


def test_a_payer_has_to_be_named_where_the_grant_has_several():
    detail = {"programme": "cash", "currency_code": "KES"}
    assert TYPE.find_granted(detail, GRANT) is None
    granted = TYPE.find_granted(detail | {"payer_fa": "ACCOUNT:2@Bank"}, GRANT)
    assert granted["payer_fa"] == "account:2@bank"


def test_a_batch_below_the_cap_of_a_payment_lowers_it():
    detail = {"programme": "cash", "currency_code": "KES", "payer_fa": "account:1@bank"}
    granted = TYPE.find_granted(detail | {"batch_cap": "70"}, GRANT)
    assert (granted["payment_cap"], granted["batch_cap"]) == ("70.00", "70.00")


@pytest.mark.parametrize(
    ("code", "amount", "finer"),
    [("JPY", "70", "69.5"), ("KES", "70.00", "69.995"), ("BHD", "70.000", "69.9995")],
)
def test_amounts_have_the_decimals_of_their_currency(code, amount, finer):
    grant = GRANT | {"currency_code": code, "payer_fas": ["account:1@bank"], "payment_cap": "70"}
    detail = {"programme": "cash", "currency_code": code}
    for asked in ({}, {"payment_cap": "70.0"}):
        assert TYPE.find_granted(detail | asked, grant)["payment_cap"] == amount
    with pytest.raises(ValueError, match="cap"):
        TYPE.find_granted(detail | {"payment_cap": finer}, grant)


def test_codes_of_currencies():
    assert all(len(code) == 3 and code.isupper() for code in DECIMALS)
    assert {"USD": 2, "EUR": 2, "KES": 2, "JPY": 0, "KWD": 3}.items() <= DECIMALS.items()
