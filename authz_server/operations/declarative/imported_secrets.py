"""The existing secrets that new registrations of files bring: hashed before the transaction."""

import secrets as system_random
from collections.abc import Callable, Mapping

from sqlalchemy import select

from authz_server.assembly import Services
from authz_server.clients.models import Client
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.clients.secrets import CLIENT_SECRET_JWT, is_secret_method
from authz_server.operations.declarative.document import Declaration, Section

Imports = Mapping[tuple[Section, str], bytes]


def find_imports(
    services: Services, declaration: Declaration, find: Callable[[str], bytes | None]
) -> Imports:
    """Return the existing secrets of new registrations, by their section and id.

    Args:
        services: the parts of the server.
        declaration: the entries of the files.
        find: returns the secret of an id; None: there is none.

    Raises:
        InvalidChangeError: a file is not a secret.
        OSError: a secret cannot be read.
    """
    sections: Mapping[Section, Mapping[str, str]] = {
        "resource_servers": {
            name: entry.authentication_method
            for name, entry in declaration.resource_servers.items()
        },
        "clients": {
            name: entry.authentication_method for name, entry in declaration.clients.items()
        },
    }
    brought = {
        (section, name): secret
        for section, methods in sections.items()
        for name, method in methods.items()
        # One that signs assertions cannot be imported, which is refused where it is added.
        if is_secret_method(method) and method != CLIENT_SECRET_JWT
        if (secret := find(name)) is not None
    }
    if not brought:
        return {}
    with services.database.reading() as session:
        stored = set(session.scalars(select(Client.id)))
    return {place: secret for place, secret in brought.items() if place[1] not in stored}


def hash_imports(
    services: Services, declaration: Declaration, imports: Imports
) -> dict[str, PreparedSecret]:
    """Return the records of existing secrets, by the id of their owner.

    Each takes about a tenth of a second, in which a transaction would hold its locks.

    Raises:
        InvalidChangeError: a secret breaks a rule.
    """
    hashed = {}
    for (section, name), secret in imports.items():
        with declaration.at(section, name):
            record = services.secrets.import_record(secret)
        hashed[name] = PreparedSecret(
            system_random.token_hex(8), record, services.secrets.fingerprint
        )
    return hashed
