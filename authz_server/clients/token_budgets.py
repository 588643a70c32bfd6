"""Token budgets: how many tokens a client may obtain within a minute, an hour or a day."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from authz_server.errors import InvalidChangeError

Period = Literal["minute", "hour", "day"]
PERIOD_SECONDS: Mapping[Period, int] = {"minute": 60, "hour": 3_600, "day": 86_400}
MAXIMUM_BUDGETS = 16

_FIELD = "token_budget"


class TokenBudget(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A number of tokens within a period.

    Attributes:
        per: the period; it begins with a minute, an hour or a day of UTC.
        tokens: the number of tokens.
        scope: count only tokens with this scope, in any spelling; empty: all tokens.
    """

    per: Period
    tokens: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    scope: str = ""

    def ends_at(self, now: float) -> int:
        """Return the end of the period that contains ``now``; both in seconds since 1970 UTC."""
        seconds = PERIOD_SECONDS[self.per]
        return (math.floor(now / seconds) + 1) * seconds


def check_budgets(value: object) -> list[dict[str, Any]]:
    """Return the budgets to store.

    Raises:
        InvalidChangeError: the value is neither a budget nor a list of 1 to 16 budgets, or two
            budgets are of the same period and scope.
    """
    listed = [value] if isinstance(value, Mapping) else value
    if not isinstance(listed, list | tuple) or not 1 <= len(listed) <= MAXIMUM_BUDGETS:
        raise InvalidChangeError(f"{_FIELD}: use a list of 1 to {MAXIMUM_BUDGETS} budgets")
    try:
        budgets = msgspec.convert(listed, tuple[TokenBudget, ...])
    except msgspec.ValidationError as error:
        raise InvalidChangeError(
            f'{_FIELD}: {error}; a budget is written as {{"per": "hour", "tokens": 100}}'
        ) from None
    if len({(budget.per, budget.scope) for budget in budgets}) < len(budgets):
        raise InvalidChangeError(f"{_FIELD}: two budgets are of the same period and scope")
    plain: list[dict[str, Any]] = msgspec.to_builtins(budgets)
    return plain
