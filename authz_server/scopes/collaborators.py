"""The parts of the server that changes of scopes call."""

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from sqlalchemy.orm import Session


class StopCheck(Protocol):
    """Refuses a change that would end a stop without lifting it."""

    def __call__(
        self, session: Session, *, scope: str | None = None, resource_server_id: str | None = None
    ) -> None:
        """Raise ConflictError if the scope or the resource server is stopped."""


class TokenRevoker(Protocol):
    """Revokes tokens by their scopes, in the transaction of a change."""

    def cut_off_scopes(
        self,
        session: Session,
        spellings: Iterable[str],
        *,
        actor: str,
        reason: str,
        scope: str = "",
    ) -> None:
        """Revoke every token that was issued until now with one of these spellings of scopes."""

    def find_cut_off_scopes(self, session: Session, spellings: Collection[str]) -> Sequence[str]:
        """Return those of some spellings for which a revocation is still kept."""
