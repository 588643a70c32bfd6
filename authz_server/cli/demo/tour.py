"""The steps of the demonstration, with their expected responses."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from authz_server.cli.demo.exchange import NOW, Answer, Request

CLIENT_ID = "demo-disbursement"
RESOURCE_SERVER_ID = "demo-mapper"
LINK_REQUEST = {
    "header": {"version": "1.0.0", "message_id": "1", "action": "link", "total_count": 1},
    "message": {
        "transaction_id": "1",
        "link_request": [{"reference_id": "1", "id": "1001@national-id", "fa": "2002@bank"}],
    },
}


@dataclass(frozen=True)
class Places:
    """The addresses and secrets of the demonstration."""

    issuer: str
    console_link: str
    mapper_url: str
    client_secret: str
    resource_server_secret: str


class StepFailedError(Exception):
    """A step got an unexpected response."""


class Tour:
    """Runs the demonstration.

    Args:
        places: addresses and secrets.
        emit: prints a paragraph.
    """

    def __init__(self, places: Places, emit: Callable[[str], None]) -> None:
        self._places = places
        self._emit = emit
        self._number = 0

    def run(self) -> None:
        """Run every step.

        Raises:
            StepFailedError: a step got an unexpected response.
            OSError: a server did not answer.
        """
        self._read_metadata()
        token = self._ask_for_a_token()
        self._call_the_mapper(token)
        self._introspect(token, active=True)
        self._read_the_keys(token)
        self._revoke(token)
        self._introspect(token, active=False)
        self._link(
            "The mapper API refuses the revoked token",
            token,
            HTTPStatus.UNAUTHORIZED,
            "401: the token is no longer valid",
        )

    def _read_metadata(self) -> None:
        issuer = self._places.issuer
        self._step(
            "Read the server's metadata (RFC 8414)",
            Request("GET", f"{issuer}/.well-known/oauth-authorization-server"),
            f"its metadata, under the issuer {issuer}",
            lambda answer: answer.json().get("issuer") == issuer,
        )

    def _ask_for_a_token(self) -> str:
        answer = self._step(
            "A disbursement system requests a token by the G2P Connect interface",
            Request(
                "POST",
                f"{self._places.issuer}/oauth2/client/token",
                headers={
                    "timestamp": NOW,
                    "message_id": "123456789020211216223812",
                    "accept-language": "en",
                },
                form=self._client_form("mapper/link"),
            ),
            "a bearer token only for mapper/link, its lifetime in seconds as a string",
            lambda answer: (
                bool(answer.json().get("access_token"))
                and answer.json().get("token_type") == "bearer"
                and answer.json().get("scope") == "mapper/link"
                and str(answer.json().get("expires_in", "")) == answer.json().get("expires_in")
            ),
        )
        token = str(answer.json()["access_token"])
        claims = json.dumps(_decode(token.split(".")[1]), indent=2)
        self._emit(f"   Its claims, which anyone with the token can read: {claims}")
        return token

    def _call_the_mapper(self, token: str) -> None:
        self._link("It calls the mapper API with the token", token, HTTPStatus.OK, "200 and ACK")
        self._link(
            "Without a token the mapper API refuses",
            None,
            HTTPStatus.UNAUTHORIZED,
            "401 with a challenge",
        )
        answer = self._step(
            "Another token, by plain OAuth and for another scope",
            Request(
                "POST",
                f"{self._places.issuer}/oauth2/token",
                form=self._client_form("mapper/resolve"),
            ),
            "a token for mapper/resolve, its lifetime in seconds as a number",
            lambda answer: (
                answer.json().get("scope") == "mapper/resolve"
                and isinstance(answer.json().get("expires_in"), int)
            ),
        )
        self._link(
            "With it the mapper API refuses to link",
            str(answer.json()["access_token"]),
            HTTPStatus.FORBIDDEN,
            "403: the token lacks the scope",
        )

    def _introspect(self, token: str, *, active: bool) -> None:
        self._step(
            "The mapper introspects the token, as it did at each call (RFC 7662)"
            if active
            else "The mapper introspects it again",
            Request(
                "POST",
                f"{self._places.issuer}/oauth2/introspect",
                form={"token": token},
                credentials=(RESOURCE_SERVER_ID, self._places.resource_server_secret),
            ),
            "active, with scope and client" if active else "inactive, and nothing else",
            lambda answer: (
                answer.json().get("active") is True
                and answer.json().get("scope") == "mapper/link"
                and answer.json().get("client_id") == CLIENT_ID
                if active
                else answer.json() == {"active": False}
            ),
        )

    def _read_the_keys(self, token: str) -> None:
        kid = _decode(token.partition(".")[0]).get("kid")
        self._step(
            "The public keys, for verifiers that check tokens offline (RFC 7517)",
            Request("GET", f"{self._places.issuer}/.well-known/jwks.json"),
            f"a set with the key {kid}, which signed the token",
            lambda answer: kid in [key.get("kid") for key in answer.json().get("keys", [])],
        )

    def _revoke(self, token: str) -> None:
        self._step(
            "The disbursement system revokes the token (RFC 7009)",
            Request(
                "POST",
                f"{self._places.issuer}/oauth2/revoke",
                form={
                    "token": token,
                    "client_id": CLIENT_ID,
                    "client_secret": self._places.client_secret,
                },
            ),
            "200: the revocation is stored",
            lambda answer: answer.status == HTTPStatus.OK,
        )

    def _link(self, title: str, token: str | None, status: HTTPStatus, expected: str) -> None:
        self._step(
            title,
            Request(
                "POST",
                f"{self._places.mapper_url}/mapper/link",
                headers={"Authorization": f"Bearer {token}"} if token else {},
                json_body=LINK_REQUEST,
            ),
            expected,
            lambda answer: answer.status == status,
        )

    def _client_form(self, scope: str) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": self._places.client_secret,
            "scope": scope,
        }

    def _step(
        self, title: str, request: Request, expected: str, holds: Callable[[Answer], bool]
    ) -> Answer:
        self._number += 1
        self._emit(f"\n{self._number}. {title}\n\n$ {request.as_curl()}\n")
        answer = request.send()
        self._emit(answer.as_text())
        if not holds(answer):
            raise StepFailedError(f"Step {self._number}: the expected response is {expected}.")
        self._emit(f"\n   As expected: {expected}.")
        return answer


def _decode(segment: str) -> dict[str, object]:
    """Return the header or the claims of a signed token, without verification."""
    decoded: dict[str, object] = json.loads(
        base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    )
    return decoded
