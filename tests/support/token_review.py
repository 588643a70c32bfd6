"""The part of a Kubernetes API server that Vault's login method asks: TokenReview, by HTTPS."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from support.openbao_authority import CertificateAuthority

_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_REVIEWER_JWT = "reviewer"


class TokenReviewApi:
    """A context manager; `accounts` says which service account ("namespace/name") a JWT belongs to.

    Only the bearer of `reviewer_jwt` may ask. `asked` holds the JWTs that were reviewed.
    """

    reviewer_jwt = _REVIEWER_JWT

    def __init__(self, authority: CertificateAuthority) -> None:
        self.accounts: dict[str, str] = {}
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                review = json.loads(self.rfile.read(length))
                allowed = self.headers["Authorization"] == f"Bearer {_REVIEWER_JWT}"
                if self.path != _PATH or not allowed:
                    self.send_error(403)
                    return
                content = json.dumps(review | {"status": api.review(review)}).encode()
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        made = authority.certify("kubernetes")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate_path, made.private_key_path)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def review(self, review: dict[str, Any]) -> dict[str, Any]:
        """Return the status of one TokenReview."""
        jwt = review["spec"]["token"]
        self.asked.append(jwt)
        account = self.accounts.get(jwt)
        if account is None:
            return {"authenticated": False, "error": "unknown token"}
        namespace, _, name = account.partition("/")
        user = {"username": f"system:serviceaccount:{namespace}:{name}", "uid": f"uid-{name}"}
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        audiences = review["spec"].get("audiences", [])
        reviewed = {"authenticated": True, "audiences": audiences}
        return reviewed | {"user": user | {"groups": groups}}
