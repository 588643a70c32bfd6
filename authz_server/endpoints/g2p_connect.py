"""The G2P Connect profile of the token endpoint.

Implements the G2P Connect Authz interface 1.0.0. Where it contradicts RFC 6749,
``docs/protocol.md`` documents the interpretation.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from authz_server.endpoints.languages import MessageCatalogue
from authz_server.errors import OAuthError
from authz_server.settings import G2PSettings
from authz_server.tokens.binding import BEARER

_MESSAGE_ID = re.compile(r"[A-Za-z0-9._:@/+=~-]+")
_MAXIMUM_DATE_CHARACTERS = 40
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT"  # RFC 9110, 5.6.7
    r"|[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT"  # RFC 850
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}"  # asctime
)


class G2PConnectProfile:
    """Checks the profile's headers and adapts its responses.

    Args:
        settings: the options that the interface leaves open.
        clock: returns the present time.

    Raises:
        ValueError: the message catalogues cannot be used.
    """

    def __init__(self, settings: G2PSettings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self._messages = MessageCatalogue(settings.default_language, settings.catalogue_directory)

    def read_message_id(self, headers: Mapping[str, str]) -> str:
        """Return the ``message_id`` header; empty if absent.

        Raises:
            OAuthError: ``message_id_malformed``.
        """
        message_id = headers.get("message_id", "")
        if not message_id:
            return ""
        if len(message_id) > self._settings.maximum_message_id_bytes or not _MESSAGE_ID.fullmatch(
            message_id
        ):
            raise OAuthError("message_id_malformed")
        return message_id

    def require_timestamp(self, headers: Mapping[str, str]) -> None:
        """Check the ``timestamp`` header against the clock.

        Raises:
            OAuthError: ``timestamp_...``.
        """
        text = headers.get("timestamp", "")
        if not text:
            if self._settings.timestamp_required:
                raise OAuthError("timestamp_missing")
            return
        at = parse_http_date(text) if len(text) <= _MAXIMUM_DATE_CHARACTERS else None
        if at is None:
            raise OAuthError("timestamp_malformed")
        if abs(self._clock().timestamp() - at) > self._settings.timestamp_window_seconds:
            raise OAuthError("timestamp_outside_window")

    def render_answer(self, answer: dict[str, object], form: str) -> None:
        """Change the members of a plain response to those of the profile.

        Args:
            answer: the members of RFC 6749.
            form: the client's response form; ``oauth`` leaves the response unchanged.
        """
        if form == "oauth":
            return
        if answer["token_type"] == BEARER:
            # The interface has no name for another type, and clients must recognise DPoP.
            answer["token_type"] = self._settings.token_type
        if self._settings.expires_in == "string":
            answer["expires_in"] = str(answer["expires_in"])

    def render_error(
        self, body: dict[str, object], error: OAuthError, headers: Mapping[str, str]
    ) -> str:
        """Add the profile's ``errors`` to the members of RFC 6749, and return the language used."""
        language, message = self._messages.message(error.reason, headers.get("accept-language"))
        body["errors"] = [{"code": error.error, "message": message}]
        return language


@lru_cache(maxsize=1_024)
def parse_http_date(text: str) -> float | None:
    """Return an HTTP date (RFC 9110, 5.6.7, any form) as seconds since 1970, or None.

    The day of the week is not checked: the example in the interface has a wrong one.
    """
    if not _HTTP_DATE.fullmatch(text):
        return None
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
