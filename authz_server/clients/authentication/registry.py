"""The client authentication methods in use, for the endpoints, the metadata and registration."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Credentials,
)
from authz_server.errors import OAuthError
from authz_server.plugin_manager import SERVER, PluginManager, ProvidedPart, require_distinct

Method: TypeAlias = ClientAuthenticationMethod | type[ClientAuthenticationMethod]
T = TypeVar("T", bound=Method)

#: A value that fits the column of the table ``client``.
_REGISTRATION = re.compile(r"[a-z0-9_]{1,40}")


class MethodNames:
    """The names and registrations of the methods, as their classes declare them.

    Args:
        provided: each method or its class, with its provider.

    Attributes:
        names: the names that the metadata lists.
        registrations: the values that a client's ``authentication_method`` may have.
        permitted: the names that each of these values permits.

    Raises:
        PluginError: two methods have a name or a value in common.
    """

    def __init__(self, provided: Sequence[tuple[str, Method]]) -> None:
        names = [ProvidedPart(by, name, method) for by, method in provided for name in method.NAMES]
        self.permitted: Mapping[str, frozenset[str]] = require_distinct(
            "authentication_method",
            [
                ProvidedPart(by, value, frozenset(permitted))
                for by, method in provided
                for value, permitted in method.REGISTRATIONS.items()
            ],
        )
        self.names = tuple(require_distinct("client authentication method", names))
        self.registrations = tuple(self.permitted)


class AuthenticationMethods(MethodNames):
    """The methods, in the order in which they look for credentials.

    Args:
        provided: each method, with its provider.

    Raises:
        PluginError: two methods have a name or a value in common.
    """

    def __init__(self, provided: Sequence[tuple[str, ClientAuthenticationMethod]]) -> None:
        super().__init__(provided)
        self._methods = tuple(method for _, method in provided)
        self._not_keyed = tuple(method for method in self._methods if not method.IS_KEYED)

    def recognise(
        self, request: AuthenticationRequest
    ) -> tuple[ClientAuthenticationMethod, Credentials] | None:
        """Return the credentials of a request and their method; None if there are none.

        Raises:
            OAuthError: ``several_authentication_methods`` (RFC 6749, 2.3).
        """
        form = request.form
        methods = self._methods
        if "client_assertion" in form:
            if "client_secret" in form or request.authorization:
                raise _several(request)
        elif request.certificate is None:
            methods = self._not_keyed
        found = None
        for method in methods:
            credentials = method.recognise(request)
            if credentials is not None:
                if found is not None:
                    raise _several(request)
                found = method, credentials
        return found


def _several(request: AuthenticationRequest) -> OAuthError:
    client_id = request.form.get("client_id", "")
    return OAuthError("several_authentication_methods", client_id=client_id)


def _permit_all(name: str) -> bool:
    del name
    return True


def collect_methods(
    built_in: Sequence[ClientAuthenticationMethod],
    plugins: PluginManager,
    permits: Callable[[str], bool] = _permit_all,
) -> AuthenticationMethods:
    """Return the built-in methods and those of the plugins.

    Args:
        built_in: the methods of the server.
        plugins: may add methods.
        permits: returns whether the enabled profiles permit a method of this name; one of which a
            name is not permitted is left out.

    Raises:
        PluginError: a plugin fails, or two methods have a name in common.
    """
    return AuthenticationMethods(_collect(built_in, plugins, permits))


def collect_names(
    built_in: Sequence[type[ClientAuthenticationMethod]],
    plugins: PluginManager,
    permits: Callable[[str], bool] = _permit_all,
) -> MethodNames:
    """Return the names of the methods that :func:`collect_methods` returns; none is made.

    Raises:
        PluginError: as :func:`collect_methods`.
    """
    return MethodNames(_collect(built_in, plugins, permits))


def _collect(
    built_in: Sequence[T], plugins: PluginManager, permits: Callable[[str], bool]
) -> list[tuple[str, T | ClientAuthenticationMethod]]:
    added = plugins.registered("register_client_authentication_methods", _require_method)
    own = [(SERVER, method) for method in built_in]
    provided: list[tuple[str, T | ClientAuthenticationMethod]] = [*own, *added]
    return [each for each in provided if all(map(permits, each[1].NAMES))]


def _require_method(part: object) -> ClientAuthenticationMethod:
    if not isinstance(part, ClientAuthenticationMethod):
        raise TypeError(f"{part!r} is not a ClientAuthenticationMethod")
    for value in part.REGISTRATIONS:
        if not _REGISTRATION.fullmatch(value):
            raise ValueError(f"{value!r} is not 1 to 40 of the characters a-z, 0-9 and _")
    return part
