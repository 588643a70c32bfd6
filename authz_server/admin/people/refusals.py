"""Refusals of log-ins: a reason, which is recorded and has a sentence in each language."""

from dataclasses import dataclass

_MAXIMUM_DETAIL_CHARACTERS = 200

#: The reasons, each with the HTTP status of its page.
REASONS = {
    "cross_site": 403,
    "malformed": 400,
    "link_used": 403,
    "log_in_over": 400,
    "passkey_unknown": 403,
    "passkey_refused": 403,
    "operator_disabled": 403,
    "other_person": 403,
    "no_session": 401,
    "not_fresh": 403,
    "last_passkey": 409,
    "no_provider": 404,
    "provider_unavailable": 503,
    "provider_refused": 403,
    "provider_answer_invalid": 403,
    "no_role": 403,
}


@dataclass(eq=False)
class LogInRefusedError(Exception):
    """A log-in, or a request of a page of people, was refused.

    Attributes:
        reason: a key of :data:`REASONS`.
        detail: for the record; never a secret.
        who: the operator, as far as known.
    """

    reason: str
    detail: str = ""
    who: str = ""

    def __post_init__(self) -> None:
        self.detail = self.detail[:_MAXIMUM_DETAIL_CHARACTERS]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return REASONS[self.reason]
