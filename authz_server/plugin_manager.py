"""Loads the enabled plugins, passes each its settings and calls their hooks."""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, NamedTuple, TypeVar

import pluggy

from authz_server.audit.events import Event, ServerStarted, ServerStopped
from authz_server.audit.notifier import Notify
from authz_server.errors import OAuthError, OperatorError
from authz_server.hookspecs import (
    PROJECT,
    AnsweredRequest,
    Hooks,
    InvalidResultError,
    RefusalError,
    Revocation,
    TokenDecision,
    copy_values,
    is_never_run,
    narrow_decision,
    require_claims,
)
from authz_server.metrics.events import PluginFailed
from authz_server.plugin_notifications import Notification, Notifications
from authz_server.settings.faults import Reference, collecting_faults
from authz_server.waiting import BoundedCalls, CallTimeoutError, run_apart

ENTRY_POINT_GROUP = "authz_server.plugins"
#: The provider of the parts that are built in.
SERVER = "authz-server"
#: How long a hook that answers a request, or is notified, may take.
CALL_SECONDS = 5.0
#: How long a hook may take at start.
START_SECONDS = 30.0
MAXIMUM_PARTS = 1_000
_MAXIMUM_TEXT = 300
#: The reason of a plugin's refusal, of which the audit record has 1,000 characters.
_MAXIMUM_REASON = 900

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
        services: the services of the server that plugins may use.
        report: receives each failure of a hook.
        call_seconds: how long a hook may take that answers a request, or is notified.
        patience_seconds: how long what notifies a plugin waits for it; None: as long as it may
            take.

    Attributes:
        faults: the faults that plugins reported while they started.
        references: what their settings refer to by name.

    Raises:
        PluginError: a plugin is missing, fails to load or to start, or implements an unknown hook.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        enabled: Sequence[str],
        settings: Mapping[str, Mapping[str, Any]],
        available: Iterable[EntryPoint] | None = None,
        *,
        services: object = None,
        report: Notify = lambda _event: None,
        call_seconds: float = CALL_SECONDS,
        patience_seconds: float | None = None,
    ) -> None:
        self._report = report
        self._call_seconds = call_seconds
        self._calls: dict[str, BoundedCalls] = {name: BoundedCalls() for name in enabled}
        self._notifications = {
            name: Notifications(name, call_seconds, patience_seconds, report) for name in enabled
        }
        self._registered: dict[str, list[tuple[str, Any]]] = {}
        self.faults: list[str] = []
        self.references: list[Reference] = []
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(Hooks)
        chosen = _choose(enabled, available)
        for name in enabled:
            self._register(name, chosen[name])
        self._check(enabled)
        for name, start in self._callers("start"):
            # Each instance of a plugin may change its own.
            given = copy_values(settings.get(name, {}))
            self._start(name, partial(start, settings=given, services=services))
        self._decide_token = self._callers("decide_token")
        self._token_claims = self._callers("token_claims")
        self._introspection_claims = self._callers("introspection_claims")
        self._event_happened = self._callers("event_happened")
        self._revocation_happened = self._callers("revocation_happened")
        self._request_answered = self._callers("request_answered")

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

    @property
    def receives_revocations(self) -> bool:
        """True if a plugin is notified of revocations."""
        return bool(self._revocation_happened)

    @property
    def follows_requests(self) -> bool:
        """True if a plugin is notified of answered requests."""
        return bool(self._request_answered)

    def describe(self, name: str) -> tuple[str, ...]:
        """Return the hooks that a plugin in use implements, in the order of the specification."""
        callers = self._pluggy.get_hookcallers(self._pluggy.get_plugin(name)) or []
        implemented = {caller.name for caller in callers}
        return tuple(hook for hook in vars(Hooks) if hook in implemented)

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
                for parts in run_apart(call, START_SECONDS):
                    each = parts.items() if isinstance(parts, Mapping) else parts
                    provided = [(f"plugin {name}", require(part)) for part in each]
                    if len(provided) > MAXIMUM_PARTS:
                        raise ValueError(f"it registers more than {MAXIMUM_PARTS} parts")  # noqa: TRY301 - reported like all others
                    found.extend(provided)
            except Exception as error:
                text = str(error)[:_MAXIMUM_TEXT]
                raise PluginError(f"plugin {name}: {hook} failed: {text}") from error
        self._registered[hook] = found
        return found

    def decide_token(self, request: TokenDecision) -> TokenDecision:
        """Let every plugin refuse the token or permit less of it; return what is permitted.

        Raises:
            OAuthError: ``refused_by_policy`` if one refuses, ``server_error`` if one fails.
        """
        for name, call in self._decide_token:
            try:
                own = copy_values(request)
                for narrowing in self._call(name, partial(call, request=own)):
                    request = narrow_decision(request, narrowing)
            except RefusalError as refusal:
                reason = str(refusal)[:_MAXIMUM_REASON]
                _logger.warning(
                    "plugin %s refused a token of client %s: %s", name, request.client_id, reason
                )
                raise OAuthError(
                    "refused_by_policy", f"plugin {name}: {reason}", client_id=request.client_id
                ) from refusal
            except Exception as error:
                raise self._fault(name, "decide_token", error, request.client_id) from error
        return request

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
        if isinstance(event, ServerStopped):
            for notifications in self._notifications.values():
                notifications.end()
        # No request waits at the start and at the end, and a plugin may rely on either.
        self._notify(
            "event_happened",
            self._event_happened,
            event.name,
            awaited=isinstance(event, ServerStarted | ServerStopped),
            event=event,
        )

    def report_revocation(self, revocation: Revocation) -> None:
        """Notify every plugin of a revocation; a failure is logged."""
        hook, callers = "revocation_happened", self._revocation_happened
        self._notify(hook, callers, revocation.kind, revocation=revocation)

    def follow_request(self, request: AnsweredRequest) -> None:
        """Notify every plugin of an answered request; a failure is logged."""
        self._notify("request_answered", self._request_answered, request.endpoint, request=request)

    def _notify(
        self,
        hook: str,
        callers: tuple[_Caller, ...],
        subject: str,
        *,
        awaited: bool = False,
        **values: object,
    ) -> None:
        for name, call in callers:
            notification = Notification(hook, subject, partial(call, **values))
            self._notifications[name].send(notification, awaited=awaited)

    def _call(self, name: str, call: Callable[[], list[Any]]) -> list[Any]:
        return self._calls[name].run(call, self._call_seconds)

    def _start(self, name: str, start: Callable[[], list[Any]]) -> None:
        def call() -> list[Any]:
            with collecting_faults(name, self.faults, self.references):
                return start()

        try:
            run_apart(call, START_SECONDS)
        except Exception as error:
            text = str(error)[:_MAXIMUM_TEXT]
            raise PluginError(f"plugin {name}: it cannot start: {text}") from error

    def _register(self, name: str, entry_point: EntryPoint) -> None:
        try:
            loaded = entry_point.load()
            plugin = loaded() if inspect.isclass(loaded) else loaded
            self._pluggy.register(plugin, name=name)
        except Exception as error:
            text = str(error)[:_MAXIMUM_TEXT]
            raise PluginError(f"plugin {name}: it cannot be loaded: {text}") from error

    def _check(self, enabled: Sequence[str]) -> None:
        try:
            self._pluggy.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"plugin {self._pluggy.get_name(error.plugin)}: {error}") from error
        for name in enabled:
            plugin = self._pluggy.get_plugin(name)
            callers = self._pluggy.get_hookcallers(plugin)
            if not callers:
                raise PluginError(f"plugin {name}: it implements no hook")
            for caller in callers:
                own = [each for each in caller.get_hookimpls() if each.plugin is plugin]
                if any(is_never_run(caller.name, each) for each in own):
                    raise PluginError(f"plugin {name}: {caller.name} must be a plain function")

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
                for added in self._call(name, partial(call, **copy_values(values))):
                    require_claims(added, collected)
                    collected |= added
            except Exception as error:
                raise self._fault(name, hook, error) from error
        return collected

    def _fault(self, name: str, hook: str, error: Exception, client_id: str = "") -> OAuthError:
        timed_out = isinstance(error, CallTimeoutError)
        failure = "invalid" if isinstance(error, InvalidResultError) else "raised"
        self._report(PluginFailed(name, hook, "timed_out" if timed_out else failure))
        _logger.error("plugin %s failed in %s", name, hook, exc_info=error)
        return OAuthError("server_error", f"plugin {name} failed in {hook}", client_id=client_id)


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
