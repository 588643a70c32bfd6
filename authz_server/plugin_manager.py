"""Loads the enabled plugins, passes each its settings and calls their hooks."""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import pluggy

from authz_server.audit.events import Event
from authz_server.errors import OAuthError, OperatorError
from authz_server.hookspecs import PROJECT, RESERVED_CLAIMS, Hooks, RefusalError, TokenDecision

ENTRY_POINT_GROUP = "authz_server.plugins"
#: The provider of the parts that are built in.
SERVER = "authz-server"

_logger = logging.getLogger(__name__)
_Caller = tuple[str, Callable[..., list[Any]]]
T = TypeVar("T")


class PluginError(OperatorError):
    """A plugin cannot be used; the message has its name and the reason."""


class ProvidedPart(NamedTuple, Generic[T]):
    """A part that is used by its name: a grant, a method, a key backend or a command.

    Attributes:
        by: the provider, for example ``plugin one_time_code``.
        name: the name of the part.
        part: the part itself.
    """

    by: str
    name: str
    part: T


def require_distinct(kind: str, parts: Iterable[ProvidedPart[T]]) -> dict[str, T]:
    """Return the provided parts by name, in order.

    Args:
        kind: the noun for the parts in the error's message.
        parts: the parts; a name may occur once.

    Raises:
        PluginError: two parts have one name.
    """
    first: dict[str, ProvidedPart[T]] = {}
    for part in parts:
        other = first.setdefault(part.name, part)
        if other is not part:
            raise PluginError(f"{kind} {part.name!r}: provided by both {other.by} and {part.by}")
    return {name: part.part for name, part in first.items()}


class PluginManager:
    """The enabled plugins, called in the order in which the settings name them.

    A hook that no plugin implements costs the check of an empty tuple.

    Args:
        enabled: names of entry points; an installed plugin that is not named is never imported.
        settings: a table for each plugin that has one.
        available: the entry points to choose from; None: those installed.

    Raises:
        PluginError: a plugin is missing, fails to load or to start, or implements an unknown hook.
    """

    def __init__(
        self,
        enabled: Sequence[str],
        settings: Mapping[str, Mapping[str, Any]],
        available: Iterable[EntryPoint] | None = None,
    ) -> None:
        self._registered: dict[str, list[tuple[str, Any]]] = {}
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(Hooks)
        chosen = _choose(enabled, available)
        for name in enabled:
            self._register(name, chosen[name])
        self._check(enabled)
        for name, start in self._callers("start"):
            _start(name, start, settings.get(name, {}))
        self._decide_token = self._callers("decide_token")
        self._token_claims = self._callers("token_claims")
        self._introspection_claims = self._callers("introspection_claims")
        self._event_happened = self._callers("event_happened")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the plugins in use."""
        return tuple(name for name, _ in self._pluggy.list_name_plugin())

    @property
    def decides(self) -> bool:
        """True if a plugin decides on tokens."""
        return bool(self._decide_token)

    @property
    def adds_claims(self) -> bool:
        """True if a plugin adds claims to tokens."""
        return bool(self._token_claims)

    @property
    def describes(self) -> bool:
        """True if a plugin adds members to introspection responses."""
        return bool(self._introspection_claims)

    @property
    def receives_events(self) -> bool:
        """True if a plugin is notified of events."""
        return bool(self._event_happened)

    def registered(self, hook: str, require: Callable[[Any], T]) -> list[tuple[str, T]]:
        """Return the parts that plugins register with a hook, each with its provider.

        The hook is called once; the parts are kept.

        Args:
            hook: the name of the hook; an implementation returns a list or a mapping of parts.
            require: returns the part, or raises if it is not of the hook's kind.

        Raises:
            PluginError: a plugin fails, or returns another type.
        """
        if hook in self._registered:
            return self._registered[hook]
        found: list[tuple[str, T]] = []
        for name, call in self._callers(hook):
            try:
                for parts in call():
                    each = parts.items() if isinstance(parts, Mapping) else parts
                    found.extend((f"plugin {name}", require(part)) for part in each)
            except Exception as error:
                raise PluginError(f"plugin {name}: {hook} failed: {error}") from error
        self._registered[hook] = found
        return found

    def decide_token(self, request: TokenDecision) -> None:
        """Let every plugin refuse the token.

        Raises:
            OAuthError: ``refused_by_policy`` if one refuses, ``server_error`` if one fails.
        """
        for name, call in self._decide_token:
            try:
                call(request=request)
            except RefusalError as refusal:
                _logger.warning(
                    "plugin %s refused a token of client %s: %s", name, request.client_id, refusal
                )
                raise OAuthError(
                    "refused_by_policy", f"plugin {name}", client_id=request.client_id
                ) from refusal
            except Exception as error:
                raise _fault(name, "decide_token", error, request.client_id) from error

    def token_claims(self, request: TokenDecision) -> dict[str, Any]:
        """Return the claims that the plugins add to a JWT access token.

        Raises:
            OAuthError: ``server_error`` if one fails, returns no claims, or uses a name that is
                reserved or added by another plugin.
        """
        return self._collect("token_claims", self._token_claims, request=request)

    def introspection_claims(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        """Return the members that the plugins add to an active introspection response.

        Raises:
            OAuthError: ``server_error``, as for :meth:`token_claims`.
        """
        return self._collect("introspection_claims", self._introspection_claims, claims=claims)

    def emit(self, event: Event) -> None:
        """Notify every plugin of an event; a failure is logged."""
        for name, call in self._event_happened:
            try:
                call(event=event)
            except Exception:
                _logger.exception("a plugin failed", extra={"plugin": name, "event": event.name})

    def _register(self, name: str, entry_point: EntryPoint) -> None:
        try:
            loaded = entry_point.load()
            plugin = loaded() if inspect.isclass(loaded) else loaded
            self._pluggy.register(plugin, name=name)
        except Exception as error:
            raise PluginError(f"plugin {name}: it cannot be loaded: {error}") from error

    def _check(self, enabled: Sequence[str]) -> None:
        try:
            self._pluggy.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"plugin {self._pluggy.get_name(error.plugin)}: {error}") from error
        for name in enabled:
            if not self._pluggy.get_hookcallers(self._pluggy.get_plugin(name)):
                raise PluginError(f"plugin {name}: it implements no hook")

    def _callers(self, hook: str) -> tuple[_Caller, ...]:
        """Return one caller per plugin; a single caller would stop at the first that raises."""
        implementing = {one.plugin_name for one in getattr(self._pluggy.hook, hook).get_hookimpls()}
        plugins = dict(self._pluggy.list_name_plugin())
        return tuple(
            (
                name,
                self._pluggy.subset_hook_caller(
                    hook, [other for other in plugins.values() if other is not plugin]
                ),
            )
            for name, plugin in plugins.items()
            if name in implementing
        )

    def _collect(self, hook: str, callers: tuple[_Caller, ...], **values: object) -> dict[str, Any]:
        collected: dict[str, Any] = {}
        for name, call in callers:
            try:
                for added in call(**values):
                    _require_claims(added, collected)
                    collected |= added
            except Exception as error:
                raise _fault(name, hook, error) from error
        return collected


def _choose(
    enabled: Sequence[str], available: Iterable[EntryPoint] | None
) -> dict[str, EntryPoint]:
    if not enabled:
        return {}
    installed: dict[str, EntryPoint] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP) if available is None else available:
        if (
            entry_point.name in enabled
            and installed.get(entry_point.name, entry_point) != entry_point
        ):
            raise PluginError(f"plugin {entry_point.name}: two installed packages provide it")
        installed[entry_point.name] = entry_point
    for name in enabled:
        if name not in installed:
            names = ", ".join(sorted(installed)) or "none"
            raise PluginError(f"plugin {name}: it is not installed. Installed: {names}")
    return installed


def _start(name: str, start: Callable[..., list[Any]], settings: Mapping[str, Any]) -> None:
    try:
        start(settings=settings)
    except Exception as error:
        raise PluginError(f"plugin {name}: it cannot start: {error}") from error


def _require_claims(added: object, collected: Mapping[str, Any]) -> None:
    if not isinstance(added, Mapping):
        raise TypeError(f"a plugin returned {type(added).__name__} instead of claims")
    for claim in added:
        if (
            not isinstance(claim, str)
            or not claim
            or claim in RESERVED_CLAIMS
            or claim in collected
        ):
            raise ValueError(f"the claim {claim!r} is reserved, taken or not a name")
    msgspec.json.encode(dict(added))


def _fault(name: str, hook: str, error: Exception, client_id: str = "") -> OAuthError:
    _logger.error("plugin %s failed in %s", name, hook, exc_info=error)
    return OAuthError("server_error", f"plugin {name} failed in {hook}", client_id=client_id)
