"""Operators for tests."""

from secrets import token_bytes

from authz_server.database.operator_sessions import OperatorPasskey
from authz_server.database.operators import Operator, OperatorRole
from authz_server.operations.operators import find_operator


def add_passkey(services, operator: str, name: str) -> None:
    """Add a passkey to an operator, as if a browser had made it."""
    with services.transaction() as session:
        row = find_operator(session, operator)
        session.add(
            OperatorPasskey(
                credential_id=token_bytes(32),
                operator_id=row.id,
                name=name,
                public_key=b"",
                sign_count=0,
                transports=[],
                created_at=services.clock(),
                last_used_at=None,
            )
        )


def add_operator(services, name: str, *roles: str, organisations=()) -> None:
    """Add an operator with the id ``id-of-NAME``, as the callers of tests have it."""
    now, id_ = services.clock(), f"id-of-{name}"
    given = [
        OperatorRole(
            operator_id=id_,
            role=role,
            resource_servers=[],
            organisations=list(organisations),
            granted_at=now,
        )
        for role in roles
    ]
    with services.transaction() as session:
        session.add(
            Operator(id=id_, name=name, enabled=True, created_at=now, updated_at=now, roles=given)
        )
