"""An application in this process with clients that sign assertions."""

import json
from collections.abc import Iterator

import pytest

from support.assertions import METHODS, Signer, make_signer
from support.parties import ACTOR
from support.protocol import Protocol, require_refusal, running_protocol


class Cast:
    """An application and clients that sign assertions."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._number = 0
        self.signers = {method: self.new(method) for method in METHODS}

    def new(self, method: str = "private_key_jwt", alg: str = "", **values) -> Signer:
        self._number += 1
        alg = alg or {"private_key_jwt": "ES256", "client_secret_jwt": "HS256"}[method]
        name = f"signer-{self._number}"
        return make_signer(self.protocol.parties, name, self.now, alg, **values)

    def now(self) -> float:
        return self.protocol.clock().timestamp()

    def offer(self, endpoint: str, form: dict[str, str]):
        return self.protocol.post(endpoint, self.protocol.form(endpoint) | form)

    def accepts(self, signer: Signer, assertion: str | None = None, **fields: str) -> bool:
        answer = self.offer("token", signer.form(assertion, **fields))
        if answer.status_code != 200:
            require_refusal(answer, 401, "invalid_client")
        return answer.status_code == 200

    def cause(self) -> str:
        """Return the recorded reason of the last refusal, recorded alone."""
        reason: str = json.loads(self.protocol.audit_trail().splitlines()[-1])["reason"]
        return reason

    def refusal(self, signer: Signer, assertion: str, endpoint: str = "token", **fields) -> str:
        """Return the recorded reason for which an assertion is refused."""
        self._number += 1
        base = {"REMOTE_ADDR": f"198.18.{self._number // 256}.{self._number % 256}"}
        form = self.protocol.form(endpoint) | signer.form(assertion, **fields)
        self.protocol.record_refusals_alone()
        answer = self.protocol.post(endpoint, form, environ_base=base)
        require_refusal(answer, 401, "invalid_client", endpoint)
        return self.cause()

    def change(self, signer: Signer, **values) -> None:
        with self.protocol.parties.change() as (services, session):
            services.clients.update_client(session, signer.id, actor=ACTOR, **values)


@pytest.fixture(scope="module")
def cast(module_database_url: str, tmp_path_factory) -> Iterator[Cast]:
    directory = tmp_path_factory.mktemp("assertions")
    # A twin would find each assertion used up.
    with running_protocol(directory, module_database_url) as protocol:
        yield Cast(protocol)
