"""The permissions for declarative files, and the limits within which a caller has them.

Each section has its own: a caller may have one permission for the whole server, and another one for
a part of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from authz_server.errors import OperatorError
from authz_server.operations.declarative.document import SECTIONS, Declaration, Section
from authz_server.operations.permissions import LimitedCallerError, Limits

#: The permission to apply each section, and the one to export it.
WRITES: Mapping[Section, str] = {
    "scopes": "scopes:write",
    "resource_servers": "resource-servers:write",
    "clients": "clients:write",
    "programmes": "scopes:write",
    "operators": "operators:write",
}
#: The sections that concern the whole server.
_WHOLE_SERVER: frozenset[Section] = frozenset({"programmes", "operators"})
READS: Mapping[Section, str] = {
    "scopes": "scopes:read",
    "resource_servers": "resource-servers:read",
    "clients": "clients:read",
}
#: The limits of a caller by section; a section that is missing has none.
SectionLimits = Mapping[Section, Limits]


class WholeServerError(OperatorError):
    """The removal of a resource server concerns the whole server, and the caller is limited."""

    def __init__(self) -> None:
        super().__init__("Its removal concerns the whole server, and your permission is limited.")


def permissions_of(declaration: Declaration) -> Mapping[Section, str]:
    """Return the permissions to apply files: one for each section that they have."""
    sections = {*declaration.sections, *(("scopes",) if declaration.catalogues else ())}
    return {name: WRITES[name] for name in SECTIONS if name in sections}


def find_limits(
    permissions: Mapping[Section, str], authorise: Callable[[str], Limits]
) -> SectionLimits:
    """Return the limits of the permission of each section.

    Args:
        permissions: the permissions by section.
        authorise: returns the limits of a permission, or refuses a caller without it.

    Raises:
        LimitedCallerError: the caller is limited, and a section concerns the whole server.
    """
    found = {section: authorise(permission) for section, permission in permissions.items()}
    if any(found[section] for section in _WHOLE_SERVER & found.keys()):
        raise LimitedCallerError
    return found


def as_arguments(limits: SectionLimits) -> dict[str, Any]:
    """Return limits as JSON, for a change that waits; a section without limits is left out."""
    return {
        section: {
            "resource_servers": _sorted(each.resource_servers),
            "organisations": _sorted(each.organisations),
        }
        for section, each in limits.items()
        if each
    }


def read_arguments(stored: Mapping[str, Mapping[str, list[str] | None]]) -> SectionLimits:
    """Return the limits from the JSON of :func:`as_arguments`."""
    return {
        section: Limits(**{name: _set(each) for name, each in stored[section].items()})
        for section in SECTIONS
        if section in stored
    }


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
