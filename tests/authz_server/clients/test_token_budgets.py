"""Token budgets: which values are stored, and when a period ends."""

import pytest

from authz_server.clients.token_budgets import TokenBudget, check_budgets
from authz_server.errors import InvalidChangeError

HOURLY = {"per": "hour", "tokens": 100}


def test_a_budget_may_stand_alone_or_in_a_list():
    """A list has budgets of different periods and scopes."""
    assert list(check_budgets(HOURLY)) == [HOURLY]
    several = [HOURLY, HOURLY | {"scope": "mapper/link"}, {"per": "day", "tokens": 1}]
    assert list(check_budgets(several)) == several


@pytest.mark.parametrize(
    "value",
    [
        [],
        100,
        {},
        HOURLY | {"per": "week"},
        HOURLY | {"tokens": 0},
        HOURLY | {"tokens": "100"},
        HOURLY | {"tokens": True},
        HOURLY | {"tokens": 1.5},
        HOURLY | {"burst": 5},
        [HOURLY, {"per": "hour", "tokens": 7}],
        [HOURLY] * 17,
    ],
)
def test_other_values_are_refused_with_the_name_of_the_property(value):
    """Two budgets of one period and scope would contradict each other."""
    with pytest.raises(InvalidChangeError, match="token_budget"):
        check_budgets(value)


@pytest.mark.parametrize(
    ("per", "now", "ends_at"),
    [("minute", 119.9, 120), ("minute", 120.0, 180), ("hour", 0.0, 3_600), ("day", 86_399, 86_400)],
)
def test_a_period_begins_with_a_minute_an_hour_or_a_day_of_utc(per, now, ends_at):
    """Every node has the same periods."""
    assert TokenBudget(per=per, tokens=1).ends_at(now) == ends_at


def test_a_budget_names_a_scope_of_the_client(registry):
    """In any spelling; a budget of another scope would never be spent."""
    registry.create_client(properties={"token_budget": HOURLY | {"scope": "mapper.link"}})
    for scope in ("mapper/resolve", "unknown"):
        with pytest.raises(InvalidChangeError, match="token_budget"):
            registry.create_client(
                id="other", properties={"token_budget": HOURLY | {"scope": scope}}
            )
