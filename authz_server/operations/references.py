"""Find names in the settings that nothing has: key rings, clients, resource servers, scopes."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients.models import Client, ResourceServer
from authz_server.scopes.models import Scope, ScopeAlias
from authz_server.settings import Settings, SettingsError
from authz_server.settings.faults import Kind, Reference
from authz_server.settings.operators import GroupRole

_PATTERN = frozenset("*?[")
_REMEDIES: Mapping[Kind, str] = {
    "client": "Register it, or correct the name.",
    "resource server": "Register it, or correct the name.",
    "scope": "Add it, or correct the name.",
}


def find_references(settings: Settings) -> Iterator[Reference]:
    """Yield what the settings of the server itself refer to and the database has."""
    for name, scopes in settings.registration.software_statement_issuers.items():
        key = f"registration.software_statement_issuers.{name}"
        yield from (Reference("scope", key, scope) for scope in scopes)
    for origin, scopes in settings.client_id_documents.allowed_origins.items():
        key = f"client_id_documents.allowed_origins.{origin}"
        yield from (Reference("scope", key, scope) for scope in scopes)
    for group, roles in settings.admin.openid.roles.items():
        for role in roles:
            if isinstance(role, GroupRole):
                key = f"admin.openid.roles.{group}"
                yield from (
                    Reference("resource server", key, each) for each in role.resource_servers
                )


def find_missing_rings(settings: Settings, references: Iterable[Reference]) -> Iterator[str]:
    """Yield a sentence for each key ring that a reference names and the settings lack."""
    for kind, key, name in references:
        if kind == "ring" and name not in settings.keys.rings:
            yield f"{key}: there is no keys.rings.{name}"


def require_rings_of_servers(session: Session, settings: Settings) -> None:
    """Require the key rings that registered resource servers name.

    Raises:
        SettingsError: the settings lack one, so that tokens for the resource server are refused.
    """
    rings = select(ResourceServer.client_id, ResourceServer.signing_ring).where(
        ResourceServer.signing_ring.is_not(None),
        ResourceServer.signing_ring.not_in(settings.keys.rings),
    )
    found = session.execute(rings.order_by(ResourceServer.client_id)).first()
    if found is not None:
        raise SettingsError(
            f"the resource server {found[0]} has its tokens signed by this ring, which is not in "
            "the settings",
            key=f"keys.rings.{found[1]}",
            remedy="Write the table, or name another ring with `authz-server resource-server "
            "update`.",
        )


def find_unregistered(
    session: Session, references: Iterable[Reference]
) -> Iterator[tuple[str, str, str]]:
    """Yield key, problem and remedy of each reference to what is not registered."""
    known: dict[Kind, Collection[str]] = {}
    for kind, key, name in dict.fromkeys(references):
        read = _NAMES.get(kind)
        if read is None:
            continue
        if kind not in known:
            known[kind] = read(session)
        if not _is_among(name, known[kind]):
            yield key, f"There is no {kind} {name}.", _REMEDIES[kind]


def _is_among(name: str, known: Collection[str]) -> bool:
    if name in known:
        return True
    return not _PATTERN.isdisjoint(name) and any(fnmatchcase(each, name) for each in known)


def _read_clients(session: Session) -> Collection[str]:
    return set(session.scalars(select(Client.id)))


def _read_servers(session: Session) -> Collection[str]:
    return set(session.scalars(select(ResourceServer.client_id)))


def _read_scopes(session: Session) -> Collection[str]:
    return {*session.scalars(select(Scope.name)), *session.scalars(select(ScopeAlias.alias))}


_NAMES: Mapping[Kind, Callable[[Session], Collection[str]]] = {
    "client": _read_clients,
    "resource server": _read_servers,
    "scope": _read_scopes,
}
