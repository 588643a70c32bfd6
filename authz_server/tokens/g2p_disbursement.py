"""Authorization details of type ``g2p_disbursement``: limits of the payments of a programme.

The members have the names and forms of the G2P Connect disburse interface where it has them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.tokens.authorization_details_type import AuthorizationDetailsType, Window
from authz_server.tokens.currencies import DECIMALS

# `\Z`, because `$` also matches before a final line feed.
_Programme = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}\Z")]
_Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
#: A financial address of G2P Connect, such as ``account:12345@national-bank``.
_FinancialAddress = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,127}\Z")]
#: At most 13 digits before the point, as an amount of G2P Connect.
_Amount = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,12})(\.[0-9]{1,3})?\Z")]
_Count = Annotated[int, Meta(ge=1, le=10_000_000)]
_Instant = Annotated[
    str,
    Meta(
        pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})\Z"
    ),
]
_LIMITS = ("payment_cap", "batch_cap", "count")


class _Detail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members of a request."""

    programme: _Programme
    currency_code: _Currency
    payer_fa: _FinancialAddress | UnsetType = UNSET
    payment_cap: _Amount | UnsetType = UNSET
    batch_cap: _Amount | UnsetType = UNSET
    count: _Count | UnsetType = UNSET
    not_before: _Instant | UnsetType = UNSET
    not_after: _Instant | UnsetType = UNSET


class _Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members of a grant."""

    programmes: Annotated[tuple[_Programme, ...], Meta(min_length=1)]
    currency_code: _Currency
    payer_fas: Annotated[tuple[_FinancialAddress, ...], Meta(min_length=1)]
    payment_cap: _Amount
    batch_cap: _Amount
    count: _Count
    not_before: _Instant | UnsetType = UNSET
    not_after: _Instant | UnsetType = UNSET


_Limited = TypeVar("_Limited", _Detail, _Grant)


class G2PDisbursement(AuthorizationDetailsType):
    """Limits payments: programme, currency, payer account, caps, count and time."""

    TYPE: ClassVar[str] = "g2p_disbursement"
    SCOPES: ClassVar[tuple[str, ...]] = ("disburse/disburse", "disburse/sync/disburse")

    def check_grant(self, grant: Mapping[str, Any]) -> None:
        """Check a grant; raise ValueError if it is malformed."""
        _read(grant, _Grant)

    def find_granted(
        self, detail: Mapping[str, Any], grant: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the detail with the grant's limits where it has none of its own."""
        asked, granted = _read(detail, _Detail), _read(grant, _Grant)
        payer_fa = _find_payer(asked, granted)
        if (
            asked.programme not in granted.programmes
            or asked.currency_code != granted.currency_code
            or payer_fa is None
        ):
            return None
        members: dict[str, Any] = {
            "programme": asked.programme,
            "currency_code": asked.currency_code,
            "payer_fa": payer_fa,
        }
        for name in _LIMITS:
            limit, value = getattr(granted, name), getattr(asked, name)
            if value is not UNSET and _number(value) > _number(limit):
                return None
            chosen = limit if value is UNSET else value
            members[name] = chosen if name == "count" else _in_decimals(chosen, asked.currency_code)
        if _number(members["payment_cap"]) > _number(members["batch_cap"]):
            # The request names a batch cap below the grant's cap for one payment.
            members["payment_cap"] = members["batch_cap"]
        return _add_window(members, asked, granted)

    def window(self, granted: Mapping[str, Any]) -> Window:
        """Return the time window of a granted detail."""
        return Window(*(_seconds(granted.get(name, UNSET)) for name in ("not_before", "not_after")))


def _read(members: Mapping[str, Any], kind: type[_Limited]) -> _Limited:
    try:
        limits = msgspec.convert(dict(members), kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    decimals = DECIMALS.get(limits.currency_code)
    if decimals is None:
        raise ValueError("currency_code: it is not a currency of ISO 4217")
    caps: list[str | UnsetType] = [limits.payment_cap, limits.batch_cap]
    amounts = [Decimal(cap) for cap in caps if not isinstance(cap, UnsetType)]
    if any(amount <= 0 or _decimals_of(amount) > decimals for amount in amounts):
        raise ValueError(f"a cap: it is not above 0, or has more than {decimals} decimals")
    if len(amounts) == len(caps) and amounts[0] > amounts[1]:
        raise ValueError("payment_cap: it is above batch_cap")
    start, end = _seconds(limits.not_before), _seconds(limits.not_after)
    if end and end <= start:
        raise ValueError("not_after: it does not lie after not_before")
    return limits


def _decimals_of(amount: Decimal) -> int:
    # Trailing zeros do not count: G2P Connect writes every amount with decimals.
    exponent = amount.normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _find_payer(asked: _Detail, granted: _Grant) -> str | None:
    """Return the granted payer account; None if it is not granted, or not the only one."""
    if isinstance(asked.payer_fa, UnsetType):
        return granted.payer_fas[0] if len(granted.payer_fas) == 1 else None
    # G2P Connect: a financial address is case-insensitive.
    wanted = asked.payer_fa.lower()
    return next((each for each in granted.payer_fas if each.lower() == wanted), None)


def _number(value: str | int) -> Decimal:
    return Decimal(value)


def _in_decimals(amount: str, currency_code: str) -> str:
    """Return the amount with the decimals of its currency, as G2P Connect writes amounts."""
    return f"{Decimal(amount):.{DECIMALS[currency_code]}f}"


def _add_window(members: dict[str, Any], asked: _Detail, granted: _Grant) -> dict[str, Any] | None:
    for name, sign in (("not_before", 1), ("not_after", -1)):
        limit, value = _seconds(getattr(granted, name)), _seconds(getattr(asked, name))
        if limit and value and sign * value < sign * limit:
            return None
        if chosen := value or limit:
            members[name] = datetime.fromtimestamp(chosen, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    start, end = (
        _seconds(members.get("not_before", UNSET)),
        _seconds(members.get("not_after", UNSET)),
    )
    return None if end and end <= start else members


def _seconds(instant: str | UnsetType) -> int:
    """Return seconds since 1970, 0 if unset; raise ValueError for a date that does not exist."""
    if isinstance(instant, UnsetType):
        return 0
    return int(datetime.fromisoformat(instant).timestamp())
