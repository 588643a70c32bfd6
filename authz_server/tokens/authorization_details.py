"""Rich authorization requests (RFC 9396) on grants without a user: parse, limit and show details.

A detail is granted if the client has a grant that covers it. A grant is a value of the property
``authorization_details_grants``, in the form of the detail's type.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.errors import InvalidChangeError, OAuthError
from authz_server.plugin_manager import SERVER, PluginManager, ProvidedPart, require_distinct
from authz_server.scopes.catalogue import ScopeCatalogue, ScopeEntry
from authz_server.tokens.authorization_details_type import AuthorizationDetailsType, Window
from authz_server.tokens.g2p_disbursement import G2PDisbursement
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

_logger = logging.getLogger(__name__)

BUILT_IN = (G2PDisbursement(),)
CLAIM = "authorization_details"
MAXIMUM_DETAILS = 16
MAXIMUM_DEPTH = 6
#: A token with its details still fits into the header of a request.
MAXIMUM_CHARACTERS = 4_096

Detail = Mapping[str, Any]


class GrantedDetails(NamedTuple):
    """The details of a token.

    Attributes:
        details: as the token carries them.
        expires_at: the end of the last window, in seconds since 1970; 0: there is no end.
    """

    details: tuple[Detail, ...]
    expires_at: int = 0


def collect_types(plugins: PluginManager) -> Mapping[str, AuthorizationDetailsType]:
    """Return the built-in types and those of the plugins, by their names.

    Raises:
        PluginError: a plugin fails, or two types have one name.
    """
    provided: list[tuple[str, AuthorizationDetailsType]] = [(SERVER, each) for each in BUILT_IN]
    provided += plugins.registered("register_authorization_details_types", _require_type)
    return require_distinct(
        "authorization details type", [ProvidedPart(by, each.TYPE, each) for by, each in provided]
    )


def _require_type(part: object) -> AuthorizationDetailsType:
    if not isinstance(part, AuthorizationDetailsType):
        raise TypeError(f"{part!r} is not an AuthorizationDetailsType")
    if not getattr(part, "TYPE", "") or not getattr(part, "SCOPES", ()):
        raise TypeError(f"{type(part).__name__} has no TYPE or no SCOPES")
    return part


def parse_details(text: str, client_id: str) -> tuple[Detail, ...]:
    """Return the details of a parameter: a JSON array of objects, each with a ``type``.

    Args:
        text: the value of ``authorization_details``.
        client_id: for the audit record.

    Raises:
        OAuthError: ``authorization_details_invalid``.
    """
    if len(text) > MAXIMUM_CHARACTERS:
        raise _invalid("too long", client_id)
    try:
        # As the one member of an object, the array is read by the strict parser of tokens.
        members = parse_json_object(f'{{"{CLAIM}":{text}}}'.encode())
    except TokenRefusedError as refusal:
        raise _invalid(str(refusal), client_id) from None
    details = members.get(CLAIM)
    if len(members) != 1 or not isinstance(details, list) or _is_deep(details, MAXIMUM_DEPTH):
        raise _invalid("not an array of objects, or nested too deeply", client_id)
    if not 0 < len(details) <= MAXIMUM_DETAILS:
        raise _invalid(f"not 1 to {MAXIMUM_DETAILS} objects", client_id)
    for detail in details:
        if not isinstance(detail, dict) or not isinstance(detail.get("type"), str):
            raise _invalid("an element is not an object with a type", client_id)
        locations = detail.get("locations", [""])
        if not isinstance(locations, list) or not locations or not all(map(_is_text, locations)):
            raise _invalid("locations: not an array of strings", client_id)
    return tuple(details)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_deep(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(each, levels - 1) for each in inner)


def _invalid(detail: str, client_id: str) -> OAuthError:
    return OAuthError("authorization_details_invalid", detail, client_id=client_id)


def _not_granted(detail: str, client_id: str) -> OAuthError:
    return OAuthError("authorization_details_not_granted", detail, client_id=client_id)


def _failed(name: str, client_id: str, error: Exception | None = None) -> OAuthError:
    """Return the refusal of a request because of a type's own fault."""
    _logger.error("the authorization details type %s failed", name, exc_info=error)
    detail = f"the authorization details type {name} failed"
    return OAuthError("server_error", detail, client_id=client_id)


def _last(ends: Sequence[int]) -> int:
    """Return the last of the ends; 0: there are none, or a detail has no end."""
    return max(ends) if ends and all(ends) else 0


def _is_small_object(found: object) -> bool:
    """Return whether what a type grants is a JSON object that fits into a token."""
    if not isinstance(found, Mapping):
        return False
    try:
        return len(msgspec.json.encode(dict(found))) <= MAXIMUM_CHARACTERS
    except (TypeError, ValueError, RecursionError):
        return False


class DetailRules:
    """Limits details to what a client is granted, and shows each to its resource servers.

    Args:
        types: the types in use, by name.
        directory: resource servers.
        catalogue: the scopes of the types, with their resource servers.
        clock: returns the present time.
    """

    def __init__(
        self,
        types: Mapping[str, AuthorizationDetailsType],
        directory: ClientCache,
        catalogue: ScopeCatalogue,
        clock: Callable[[], datetime],
    ) -> None:
        self._types = types
        self._directory = directory
        self._catalogue = catalogue
        self._clock = clock

    def check_grant(self, name: str, grant: Detail) -> None:
        """Check a grant that an operator gives to a client.

        Args:
            name: the type.
            grant: a value of ``authorization_details_grants``.

        Raises:
            InvalidChangeError: there is no such type, or it does not accept the grant.
        """
        kind = self._types.get(name)
        if kind is None:
            known = ", ".join(self._types)
            raise InvalidChangeError(
                f"authorization_details_grants: there is no type {name!r}; there are {known}"
            )
        try:
            kind.check_grant(grant)
        except ValueError as error:
            raise InvalidChangeError(f"authorization_details_grants: {name}: {error}") from error

    def find_scopes(
        self, client: ClientEntry, details: Iterable[Detail], named: Sequence[str]
    ) -> list[str]:
        """Return the scopes of the types of the details, for which a request asks if it names none.

        Args:
            client: only its allowed scopes are returned.
            details: the parsed details.
            named: the ids of the resource servers that the request names; empty: any.

        Raises:
            OAuthError: ``authorization_details_invalid``; a type is unknown.
        """
        found: dict[str, None] = {}
        for detail in details:
            for name in self._type_of(detail, client).SCOPES:
                entry = self._catalogue.find(name)
                if entry is None or entry.name not in client.allowed_scopes:
                    continue
                if not named or entry.resource_server_id in named:
                    found[entry.name] = None
        return list(found)

    def require_details(
        self, client: ClientEntry, scopes: Iterable[ScopeEntry], details: Sequence[Detail]
    ) -> None:
        """Require details for the scopes that a client may use only within its grants.

        The resource server of each such scope needs a detail that is for it: with one that is for
        another resource server alone, the token would not be limited there.

        Raises:
            OAuthError: ``authorization_details_missing``.
        """
        properties = client.properties
        if not properties.authorization_details_required:
            return
        asked = tuple(scopes)
        for name in properties.authorization_details_grants:
            kind = self._types.get(name)
            # A type without its plugin limits nothing that could be checked: refuse all scopes.
            needed = [each.name for each in asked if kind is None or each.name in kind.SCOPES]
            limits = self.find_limits(asked, details)
            missing = [scope for scope in needed if (name, scope) not in limits]
            if missing:
                raise OAuthError(
                    "authorization_details_missing",
                    f"{name} for {' '.join(missing)}",
                    client_id=client.id,
                )

    def find_limits(
        self, scopes: Iterable[ScopeEntry], details: Iterable[Detail]
    ) -> set[tuple[str, str]]:
        """Return which types limit which scopes of a token that has such details.

        A detail limits a scope of its type at the resource servers that it is for.
        """
        entries = tuple(scopes)
        found: set[tuple[str, str]] = set()
        for detail in details:
            name = detail["type"]
            kind = self._types.get(name)
            limited = kind.SCOPES if kind is not None else ()
            servers = self._servers_of(detail)
            found.update(
                (name, each.name)
                for each in entries
                if each.name in limited and each.resource_server_id in servers
            )
        return found

    def grant(
        self,
        client: ClientEntry,
        details: Iterable[Detail],
        audience: Iterable[str],
        lifetime_seconds: int,
    ) -> GrantedDetails:
        """Return the details as they are granted.

        Args:
            client: the client that asks.
            details: the parsed details.
            audience: the identifiers of the token's resource servers.
            lifetime_seconds: of the token. The window of a detail has to overlap with it.

        Raises:
            OAuthError: ``authorization_details_invalid`` or ``..._not_granted``.
        """
        servers = self._server_ids(audience)
        now = int(self._clock().timestamp())
        granted: list[Detail] = []
        ends: list[int] = []
        for detail in details:
            found = self._find_granted(client, detail)
            if found is None:
                raise _not_granted(f"no grant covers a detail of {detail['type']}", client.id)
            if not servers.intersection(self._servers_of(found)):
                raise _not_granted("a detail is of another resource server", client.id)
            window = self._window_of(found, client)
            is_over = 0 < window.not_after <= now
            if is_over or window.not_before >= now + lifetime_seconds:
                raise _not_granted("a detail ends before the token, or begins after it", client.id)
            ends.append(window.not_after)
            granted.append(found)
        return GrantedDetails(tuple(granted), _last(ends))

    def keep(self, client: ClientEntry, details: tuple[Detail, ...]) -> GrantedDetails:
        """Return granted details of a token as those of a further token, which ends with them."""
        ends = [self._window_of(each, client).not_after for each in details]
        return GrantedDetails(details, _last(ends))

    def is_covered(self, client: ClientEntry, details: Iterable[Detail]) -> bool:
        """Return whether the present grants of a client cover the details of its token.

        Raises:
            OAuthError: ``server_error``; a type fails.
        """
        try:
            return all(self._find_granted(client, each) is not None for each in details)
        except OAuthError as error:
            if error.error == "server_error":
                raise
            return False

    def as_registered(self, details: Iterable[Detail]) -> tuple[Detail, ...]:
        """Return details with their locations as they are registered; unknown ones unchanged.

        Details of two spellings of one resource server are equal afterwards.
        """
        return tuple(
            {**each, "locations": list(dict.fromkeys(map(self._registered, each["locations"])))}
            if "locations" in each
            else each
            for each in details
        )

    def _registered(self, location: str) -> str:
        owner = self._directory.find_resource_server(location)
        server = owner.resource_server if owner is not None else None
        return location if server is None else server.identifier

    def of_servers(
        self, details: Iterable[Detail], server_ids: Iterable[str]
    ) -> tuple[Detail, ...]:
        """Return the details for resource servers: by ``locations``, or else by their type."""
        wanted = set(server_ids)
        return tuple(each for each in details if wanted.intersection(self._servers_of(each)))

    def of_audience(self, details: Iterable[Detail], audience: Iterable[str]) -> tuple[Detail, ...]:
        """Return the details for the resource servers with these identifiers."""
        return self.of_servers(details, self._server_ids(audience))

    def _type_of(self, detail: Detail, client: ClientEntry) -> AuthorizationDetailsType:
        kind = self._types.get(detail["type"])
        if kind is None:
            raise _invalid("unknown type", client.id)
        return kind

    def _find_granted(self, client: ClientEntry, detail: Detail) -> Detail | None:
        """Return the detail by the first grant that covers it; None if there is none."""
        kind = self._type_of(detail, client)
        properties = client.properties
        registered = properties.authorization_details_types
        members = {name: each for name, each in detail.items() if name not in {"type", "locations"}}
        locations = self._checked_locations(detail, client)
        if registered is not None and kind.TYPE not in registered:
            return None
        for grant in properties.authorization_details_grants.get(kind.TYPE, ()):
            try:
                found = kind.find_granted(members, grant)
            except ValueError as error:
                raise _invalid(str(error), client.id) from None
            except Exception as error:
                raise _failed(kind.TYPE, client.id, error) from error
            if found is not None and not _is_small_object(found):
                raise _failed(kind.TYPE, client.id)
            if found is not None:
                return {"type": kind.TYPE, **locations, **found}
        return None

    def _window_of(self, granted: Detail, client: ClientEntry) -> Window:
        try:
            window = Window(*self._types[granted["type"]].window(granted))
        except Exception as error:
            raise _failed(granted["type"], client.id, error) from error
        if not all(type(each) is int for each in window):
            raise _failed(granted["type"], client.id)
        return window

    def _checked_locations(self, detail: Detail, client: ClientEntry) -> dict[str, list[str]]:
        if "locations" not in detail:
            return {}
        allowed = set(self._servers_of({"type": detail["type"]}))
        # As registered, since a resource server compares texts to find what is for it.
        found: dict[str, None] = {}
        for location in detail["locations"]:
            owner = self._directory.find_resource_server(location)
            if owner is None or owner.resource_server is None or owner.id not in allowed:
                raise _not_granted("locations: not a resource server of the type", client.id)
            found[owner.resource_server.identifier] = None
        return {"locations": list(found)}

    def _servers_of(self, detail: Detail) -> list[str]:
        """Return the ids of the resource servers that a detail is for."""
        locations = detail.get("locations")
        if locations:
            return list(self._server_ids(locations))
        kind = self._types.get(detail["type"])
        entries = [self._catalogue.find(name) for name in kind.SCOPES] if kind else []
        return [each.resource_server_id for each in entries if each and each.resource_server_id]

    def _server_ids(self, identifiers: Iterable[str]) -> set[str]:
        owners = [self._directory.find_resource_server(each) for each in identifiers]
        return {owner.id for owner in owners if owner is not None}
