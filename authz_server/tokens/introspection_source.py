"""Sources of introspection beyond this server's tokens, and what a caller may see of an answer."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import msgspec

from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.clients.fetching import FetchError
from authz_server.clients.identifiers import normalised
from authz_server.errors import OAuthError
from authz_server.metrics.events import PluginFailed
from authz_server.plugin_manager import PluginManager, ProvidedPart, require_distinct
from authz_server.scopes.catalogue import ScopeCatalogue

#: The largest answer of a source, as JSON.
MAXIMUM_ANSWER_BYTES = 16_384
_MAXIMUM_CHARACTERS = 512
#: The members that are passed on as they are. Others could pass for what this server grants.
_MEMBERS = ("iss", "sub", "client_id", "aud", "exp", "iat", "nbf", "jti", "token_type")
_OBJECTS = ("cnf", "act")
_TEXTS = ("sub", "client_id", "jti", "token_type")
_TIMES = ("iat", "nbf")

_logger = logging.getLogger(__name__)


class IntrospectionSource(ABC):
    """Describes tokens of other issuers; safe for threads.

    Attributes:
        NAME: its name in messages.
    """

    NAME: ClassVar[str]

    @abstractmethod
    async def find_active(self, token: str) -> Mapping[str, Any] | None:
        """Return the members of an active response (RFC 7662, 2.2), or None.

        The server calls it for a token that is not valid as one of its own. The answer needs
        ``iss``, ``aud``, ``exp`` and ``scope``; the caller sees it only if it is in the audience,
        and of the scopes those that it owns. A function that waits is awaited as a ``Step``.

        Args:
            token: as presented.

        Raises:
            FetchError: the other issuer cannot be asked at present.
        """


class IntrospectionSources:
    """Asks the sources in their order, and applies this server's rules to the first answer.

    Args:
        sources: by name.
        issuer: the ``iss`` of this server, which no answer may have.
        directory: the clients of this server, whose ids no answer may have.
        catalogue: finds scopes.
        now: returns the present time in seconds since 1970.
        report: receives each failure of a source.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        sources: Mapping[str, IntrospectionSource],
        *,
        issuer: str,
        directory: ClientCache,
        catalogue: ScopeCatalogue,
        now: Callable[[], float],
        report: Callable[[object], None],
    ) -> None:
        self._sources = sources
        self._issuer = issuer
        self._directory = directory
        self._catalogue = catalogue
        self._now = now
        self._report = report

    def __bool__(self) -> bool:
        return bool(self._sources)

    async def find_active(
        self, caller: ClientEntry, token: str, *, sees_all: bool
    ) -> dict[str, Any] | None:
        """Return what the caller may see of a token of another issuer; None: it is inactive.

        Raises:
            OAuthError: ``temporarily_unavailable`` if an issuer cannot be asked, ``server_error``
                if a source fails or its answer is malformed.
        """
        for name, source in self._sources.items():
            try:
                found = await source.find_active(token)
                if found is not None:
                    return self._limit(caller, require_answer(found), sees_all=sees_all)
            except OAuthError:
                raise
            except FetchError as error:
                detail = f"{name}: {error}"
                raise OAuthError("temporarily_unavailable", detail, client_id=caller.id) from error
            except Exception as error:
                _logger.exception("the introspection source %s failed", name)
                self._report(PluginFailed(name, "register_introspection_sources", "raised"))
                detail = f"the introspection source {name} failed"
                raise OAuthError("server_error", detail, client_id=caller.id) from error
        return None

    def _limit(
        self, caller: ClientEntry, found: Mapping[str, Any], *, sees_all: bool
    ) -> dict[str, Any] | None:
        """Return the answer that the caller may see; None: none of it."""
        if found["iss"] == self._issuer or self._now() >= found["exp"]:
            return None
        # A resource server would take either for a client of this server.
        if any(self._directory.find(found.get(name, "")) for name in ("sub", "client_id")):
            return None
        own = caller.resource_server
        if not sees_all and (own is None or not _is_for(found["aud"], own.identifier)):
            return None
        scopes = [
            spelling
            for spelling in dict.fromkeys(found["scope"].split(" "))
            if (entry := self._catalogue.find(spelling)) is not None
            and (sees_all or entry.resource_server_id == caller.id)
        ]
        if not scopes:
            return None
        answer: dict[str, Any] = {"active": True, "scope": " ".join(scopes)}
        return answer | {name: found[name] for name in (*_MEMBERS, *_OBJECTS) if name in found}


def require_answer(found: object) -> Mapping[str, Any]:
    """Return the answer of a source if it is well-formed.

    Raises:
        ValueError: it is too large or no JSON, or a member is absent or of another type.
    """
    if not isinstance(found, Mapping):
        raise ValueError("a source returned no mapping")  # noqa: TRY004 - one error for every rule
    try:
        size = len(msgspec.json.encode(dict(found)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("an answer is not JSON") from error
    if size > MAXIMUM_ANSWER_BYTES:
        raise ValueError("an answer is too large")
    required = _is_text(found.get("iss")) and isinstance(found.get("scope"), str)
    if not required or not _is_time(found.get("exp")) or not _listed(found.get("aud")):
        raise ValueError("an answer has no iss, aud, exp or scope")
    texts = all(_is_text(found[name]) for name in _TEXTS if name in found)
    times = all(_is_time(found[name]) for name in _TIMES if name in found)
    if not (texts and times and all(isinstance(found.get(n, {}), dict) for n in _OBJECTS)):
        raise ValueError("a member of an answer has another type")
    return found


def collect_sources(plugins: PluginManager) -> dict[str, IntrospectionSource]:
    """Return the introspection sources of plugins, by name.

    Raises:
        PluginError: a plugin fails, or two sources have one name.
    """
    parts: Iterable[ProvidedPart[IntrospectionSource]] = (
        ProvidedPart(by, source.NAME, source)
        for by, source in plugins.registered("register_introspection_sources", _require_source)
    )
    return require_distinct("introspection source", parts)


def _require_source(part: object) -> IntrospectionSource:
    if not isinstance(part, IntrospectionSource) or not _is_text(getattr(part, "NAME", None)):
        raise TypeError(f"{part!r} is not an IntrospectionSource with a NAME")
    return part


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAXIMUM_CHARACTERS and value.isprintable()


def _is_time(value: object) -> bool:
    # A bool is an int.
    return type(value) is int and value >= 0


def _listed(audience: object) -> list[str]:
    """Return an ``aud`` as a list of strings; empty if it is malformed."""
    listed = audience if isinstance(audience, list | tuple) else [audience]
    return [*listed] if all(_is_text(each) for each in listed) else []


def _is_for(audience: object, identifier: str) -> bool:
    return normalised(identifier) in {normalised(each) for each in _listed(audience)}
