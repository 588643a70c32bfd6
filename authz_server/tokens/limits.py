"""Limits of a client's tokens: payment windows, its expiry, token budgets and the message key."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from math import ceil
from typing import NamedTuple

from authz_server.clients.cache import ClientEntry
from authz_server.clients.counters.shared import SharedCounters
from authz_server.clients.restrictions import MESSAGE_CLAIMS, Restrictions
from authz_server.clients.token_budgets import TokenBudget
from authz_server.errors import OAuthError
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.tokens.authorization import Authorization

#: Beyond this number of counts, those of past periods are dropped.
_MAXIMUM_COUNTS = 10_000


class _Due(NamedTuple):
    """A budget that a token is counted in."""

    name: tuple[str, str, str]
    tokens: int
    ends_at: int


def find_latest_expiry(client: ClientEntry, restrictions: Restrictions, now: float) -> float:
    """Return the latest expiry of a token, in seconds since 1970 UTC; infinity for no limit.

    Args:
        client: the authenticated client.
        restrictions: the client's.
        now: the present time, in seconds since 1970 UTC.

    Raises:
        OAuthError: ``outside_payment_window``.
    """
    if restrictions.windows is None:
        return restrictions.expires_at
    closes_at = restrictions.windows.closes_at(now)
    if closes_at <= now:
        raise OAuthError("outside_payment_window", client_id=client.id)
    return min(restrictions.expires_at, closes_at)


class TokenLimits:
    """Applies the restrictions of a client to the authorization for one token.

    Each process counts the tokens that it issues. With shared counters, those of all processes
    decide; while their store fails, each process grants the whole budget.

    Args:
        catalogue: finds the scopes that budgets name.
        clock: returns the present time.
        counters: count over all processes; None: each process for itself.
    """

    def __init__(
        self,
        catalogue: ScopeCatalogue,
        clock: Callable[[], datetime],
        counters: SharedCounters | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._counters = counters
        self._lock = threading.Lock()
        # By client, period and scope: the number of tokens, and the end of the period.
        self._issued: dict[tuple[str, str, str], tuple[int, int]] = {}

    async def apply(
        self,
        client: ClientEntry,
        restrictions: Restrictions,
        authorization: Authorization,
        *,
        asks_store: bool = False,
    ) -> Authorization:
        """Return the authorization within the client's limits; nothing is counted yet.

        Args:
            client: the authenticated client.
            restrictions: the client's.
            authorization: the outcome of the grant.
            asks_store: whether the shared counts are read, too. Otherwise a budget that other
                processes have spent may refuse the token as late as :meth:`count`.

        Raises:
            OAuthError: ``outside_payment_window`` or ``token_budget_spent``.
        """
        now = self._clock().timestamp()
        latest = find_latest_expiry(client, restrictions, now)
        if restrictions.budgets:
            due = _in_order(self._find_due(client, restrictions.budgets, authorization, now))
            self._require_locally(due, now)
            if asks_store:
                await self._add(due, 0, now)
        if latest < float("inf"):
            latest = min(latest, authorization.expires_at or latest)
            authorization = replace(authorization, expires_at=int(latest))
        claims = authorization.claims or {}
        # An exchanged token is bound to the signer of its subject token's messages already.
        if restrictions.claims and claims.keys().isdisjoint(MESSAGE_CLAIMS):
            authorization = replace(authorization, claims={**claims, **restrictions.claims})
        return authorization

    async def count(
        self, client: ClientEntry, restrictions: Restrictions, authorization: Authorization
    ) -> None:
        """Count a token in the budgets of its client; the counts decide.

        What is refused before spends nothing. Of requests that race for the last token of a budget,
        one is granted it.

        Args:
            client: the authenticated client.
            restrictions: the client's.
            authorization: what the token is issued for.

        Raises:
            OAuthError: ``token_budget_spent``.
        """
        if not restrictions.budgets:
            return
        now = self._clock().timestamp()
        due = _in_order(self._find_due(client, restrictions.budgets, authorization, now))
        self._take_locally(due, now)
        await self._add(due, 1, now)

    def _find_due(
        self,
        client: ClientEntry,
        budgets: tuple[TokenBudget, ...],
        authorization: Authorization,
        now: float,
    ) -> Iterator[_Due]:
        for budget in budgets:
            scope = budget.scope
            if scope:
                entry = self._catalogue.find(scope)
                if entry is None or entry.name not in authorization.scopes:
                    continue
                scope = entry.name
            yield _Due((client.id, budget.per, scope), budget.tokens, budget.ends_at(now))

    async def _add(self, due: list[_Due], number: int, now: float) -> None:
        """Add to the shared counts, or read them; one that leaves no room refuses the token."""
        if self._counters is None:
            return
        for name, tokens, ends_at in due:
            count = await self._counters.add(
                "token", *name, now=now, ends_at=ends_at, number=number
            )
            if count is not None and count.number - number >= tokens:
                # Until the end of the period, this process need not ask again.
                self._issued[name] = (max(tokens, self._issued.get(name, (0, 0))[0]), ends_at)
                raise _spent(name, ends_at, now)

    def _take_locally(self, due: list[_Due], now: float) -> None:
        """Count a token in all its budgets, or in none if one of them is spent."""
        with self._lock:
            self._require_locally(due, now)
            for each in due:
                self._issued[each.name] = (self._count(each) + 1, each.ends_at)
            if len(self._issued) > _MAXIMUM_COUNTS:
                self._issued = {
                    name: count for name, count in self._issued.items() if count[1] > now
                }

    def _require_locally(self, due: list[_Due], now: float) -> None:
        for each in due:
            if self._count(each) >= each.tokens:
                raise _spent(each.name, each.ends_at, now)

    def _count(self, due: _Due) -> int:
        number, ends_at = self._issued.get(due.name, (0, 0))
        return number if ends_at == due.ends_at else 0


def _in_order(due: Iterable[_Due]) -> list[_Due]:
    """Return the budgets in the order in which they are counted, each name with its lowest number.

    A spent budget refuses the token after those before it have counted it. The first ones are those
    that end first, and of one scope: what is lost in them ends no later than the refusals.
    """
    lowest = {each.name: each for each in sorted(due, key=lambda each: -each.tokens)}
    return sorted(lowest.values(), key=lambda each: (each.ends_at, not each.name[2]))


def _spent(name: tuple[str, str, str], ends_at: int, now: float) -> OAuthError:
    client_id, period, scope = name
    return OAuthError(
        "token_budget_spent",
        f"per {period}{': ' if scope else ''}{scope}",
        retry_after_seconds=max(1, ceil(ends_at - now)),
        client_id=client_id,
    )
