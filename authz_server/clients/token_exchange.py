"""The tokens that a client may exchange (RFC 8693)."""

from typing import Annotated

import msgspec
from msgspec import Meta

#: Stands for every subject, in a list of subjects.
ANY = "*"

_Text = Annotated[str, Meta(min_length=1, max_length=255)]


class Party(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A party as a token names it (RFC 8693, 4.1).

    Attributes:
        sub: the subject.
        iss: the issuer; empty: this server.
    """

    sub: _Text
    iss: str = ""


class TokenExchangePolicy(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The tokens that a client may exchange; an empty list permits none.

    Attributes:
        subjects: the subjects of this server's tokens that it may present; ``*`` for every one.
        issuers: likewise for the tokens of registered issuers, by their names in the settings.
        actors: the subjects of this server's tokens that it may present as actor tokens, besides
            its own.
        audiences: the ids of the resource servers that the new tokens may be for.
        impersonation: whether it gets a token without ``act`` if it presents no actor token;
            otherwise the client is the actor.
    """

    subjects: tuple[_Text, ...] = ()
    issuers: dict[str, tuple[_Text, ...]] = {}
    actors: tuple[_Text, ...] = ()
    audiences: tuple[_Text, ...] = ()
    impersonation: bool = False

    def permits_subject(self, subject: str, issuer: str = "") -> bool:
        """Return whether a subject token may be presented.

        Args:
            subject: its ``sub``.
            issuer: the name of its registered issuer; empty: this server.
        """
        permitted = self.issuers.get(issuer, ()) if issuer else self.subjects
        return subject in permitted or ANY in permitted
