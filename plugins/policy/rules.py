"""The rules of a policy: their file, their conditions and their effects."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, time, tzinfo
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from authz_server.plugin_api import TokenDecision

Effect = Literal["allow", "refuse", "narrow"]
Networks = tuple[IPv4Network | IPv6Network, ...]
_EFFECTS = ("allow", "refuse", "narrow")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; it applies to a request if each of its conditions does.

    Attributes:
        name: its name in records.
        effect: ``allow`` and ``refuse`` decide; ``narrow`` leaves the decision to later rules.
        reason: the text in records.
        clients: patterns of client ids, such as ``payer-*``; empty: any client.
        scopes: patterns of scopes, one of which the request has; empty: any scopes.
        grant_types: grant types; empty: any.
        networks: the source is in one of them; empty: any source.
        other_networks: the source is in none of them.
        weekdays: ``mon`` to ``sun``; empty: any day.
        hours: ``HH:MM-HH:MM``, its end excluded, over midnight if the end is earlier.
        remove_scopes: patterns of the scopes that ``narrow`` removes.
        lifetime_seconds: the longest lifetime that ``narrow`` leaves; 0: any.
    """

    name: str
    effect: Effect
    reason: str = ""
    clients: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ()
    networks: Networks = ()
    other_networks: Networks = ()
    weekdays: tuple[str, ...] = ()
    hours: tuple[time, time] | None = None
    remove_scopes: tuple[str, ...] = ()
    lifetime_seconds: int = 0

    def applies(self, request: TokenDecision, at: datetime) -> bool:
        """Return whether the rule applies to a request at a local time."""
        return (
            (not self.clients or _match(request.client_id, self.clients))
            and (not self.scopes or any(_match(scope, self.scopes) for scope in request.scopes))
            and (not self.grant_types or request.grant_type in self.grant_types)
            and (not self.networks or _is_within(request.source_address, self.networks))
            and not _is_within(request.source_address, self.other_networks)
            and (not self.weekdays or _DAYS[at.weekday()] in self.weekdays)
            and self._is_hour(at.time())
        )

    def _is_hour(self, at: time) -> bool:
        if self.hours is None:
            return True
        begins, ends = self.hours
        return begins <= at < ends if begins < ends else at >= begins or at < ends

    def narrow(self, request: TokenDecision) -> TokenDecision:
        """Return the request with what the rule leaves; perhaps without scopes."""
        kept = tuple(each for each in request.scopes if not _match(each, self.remove_scopes))
        seconds = request.lifetime_seconds
        if self.lifetime_seconds:
            seconds = min(seconds, self.lifetime_seconds)
        return replace(request, scopes=kept, lifetime_seconds=seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The decision of a policy on a request.

    Attributes:
        request: the request as it is permitted; None: it is refused.
        rules: the names of the rules that applied.
        reason: the reason of the refusal.
    """

    request: TokenDecision | None
    rules: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in their order; the first that allows or refuses decides.

    Attributes:
        rules: the rules.
        default: the effect if none decides.
        zone: the time zone of hours and days.
    """

    rules: tuple[Rule, ...]
    default: Effect = "allow"
    zone: tzinfo = UTC

    def decide(self, request: TokenDecision, at: datetime) -> Outcome:
        """Return what the rules make of a request at a time."""
        local, applied = at.astimezone(self.zone), []
        for rule in self.rules:
            if not rule.applies(request, local):
                continue
            applied.append(rule.name)
            if rule.effect == "allow":
                return Outcome(request, tuple(applied))
            if rule.effect == "refuse":
                return Outcome(
                    None, tuple(applied), f"rule {rule.name}: {rule.reason}".rstrip(": ")
                )
            request = rule.narrow(request)
            if not request.scopes:
                return Outcome(None, tuple(applied), f"rule {rule.name} leaves no scope")
        if self.default == "refuse":
            return Outcome(None, tuple(applied), "no rule allows it")
        return Outcome(request, tuple(applied))


def read_policy(path: Path) -> Policy:
    """Return the policy in a TOML file.

    Raises:
        ValueError: the file cannot be read, or a rule in it cannot be used.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: it cannot be read: {error}") from error
    if not document.keys() <= {"default", "time_zone", "rules"}:
        raise ValueError(f"{path}: use default, time_zone and rules")
    default = document.get("default", "allow")
    tables = document.get("rules", [])
    if default not in {"allow", "refuse"} or not isinstance(tables, list):
        raise ValueError(f'{path}: default is "allow" or "refuse", and rules are [[rules]]')
    try:
        # A small system has no data of time zones.
        name = str(document.get("time_zone", "UTC"))
        zone: tzinfo = UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{path}: time_zone: there is no such time zone") from error
    rules = tuple(_read_rule(path, position, each) for position, each in enumerate(tables))
    if len({rule.name for rule in rules}) != len(rules):
        raise ValueError(f"{path}: two rules have one name")
    return Policy(rules, default, zone)


def _read_rule(path: Path, position: int, table: object) -> Rule:
    where = f"{path}: rules[{position}]"
    known = {field.name for field in fields(Rule)}
    if not isinstance(table, dict) or not table.keys() <= known:
        raise ValueError(f"{where}: use {', '.join(sorted(known))}")
    values: dict[str, Any] = dict(table)
    texts = all(isinstance(values.get(key, ""), str) for key in ("name", "reason"))
    if not texts or not values.get("name") or values.get("effect") not in _EFFECTS:
        raise ValueError(f"{where}: a name and an effect ({', '.join(_EFFECTS)}) are needed")
    for key in ("clients", "scopes", "grant_types", "weekdays", "remove_scopes"):
        values[key] = _read_texts(f"{where}.{key}", values.get(key, []))
    for key in ("networks", "other_networks"):
        values[key] = _read_networks(f"{where}.{key}", values.get(key, []))
    if not set(values["weekdays"]) <= set(_DAYS):
        raise ValueError(f"{where}.weekdays: use {', '.join(_DAYS)}")
    if "hours" in values:
        values["hours"] = _read_hours(f"{where}.hours", values["hours"])
    _require_narrowing(where, values)
    return Rule(**values)


def _require_narrowing(where: str, values: dict[str, Any]) -> None:
    seconds = values.get("lifetime_seconds", 0)
    if type(seconds) is not int or seconds < 0:
        raise ValueError(f"{where}.lifetime_seconds: use a number of seconds")
    if bool(values["remove_scopes"] or seconds) != (values["effect"] == "narrow"):
        raise ValueError(f"{where}: remove_scopes and lifetime_seconds are for narrow")


def _read_texts(where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{where}: use a list of strings")
    return tuple(value)


def _read_networks(where: str, value: object) -> Networks:
    try:
        return tuple(ip_network(each) for each in _read_texts(where, value))
    except ValueError as error:
        raise ValueError(f"{where}: use a list of networks, such as 10.0.0.0/8") from error


def _read_hours(where: str, value: object) -> tuple[time, time]:
    found = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'{where}: write "HH:MM-HH:MM"')
    begins_hour, begins_minute, ends_hour, ends_minute = map(int, found.groups())
    return time(begins_hour, begins_minute), time(ends_hour, ends_minute)


def _match(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _is_within(address: str, networks: Networks) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)
