"""The admin API with every act of ``[approvals]``, and three callers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from werkzeug.test import TestResponse

from authz_server.assembly.operator import operator_services
from authz_server.settings.approvals import APPROVED_ACTS, ConfirmedAct
from support.admin_site import AdminSite, create_caller, running_admin_site

#: The acts that the registration and the change of nearly every client are.
OF_EVERY_CLIENT = ("client.widen_limits", "client.first_credential")
APPROVERS = ("second", "third")
MONEY = "disburse/disburse"
KEYS = {"jwks_uri": "https://client.example/jwks.json"}


class ApprovalSite:
    """The admin API, whose caller requests, and whose further callers decide."""

    def __init__(self, site: AdminSite) -> None:
        self.api = site
        with operator_services(site.settings) as services:
            for name in APPROVERS:
                site.secrets[name] = create_caller(services, name)
        site.clock.keep_ahead()
        for app in (site.public, site.app):
            app.extensions["authz_server"].feed.poll()
        self._tokens: dict[str, str] = {}

    def token_of(self, name: str) -> str:
        """Return a token of a caller with every scope."""
        if name not in self._tokens:
            self._tokens[name] = self.api.new_token(client=name)
        return self._tokens[name]

    def forget_tokens(self) -> None:
        """Obtain new tokens from now on."""
        self._tokens.clear()
        self.api.forget_tokens()

    def decide(
        self, change: str, act: str, by: str = "second", *, query: str = "", reason: str = ""
    ) -> TestResponse:
        """Approve, reject, withdraw or confirm a change with its present tag."""
        path = f"/changes/{change}"
        return self.api.send(
            "POST",
            f"{path}/{act}{query}",
            token=self.token_of(by),
            json={"reason": reason},
            headers={"If-Match": self.api.get(path).headers["ETag"]},
        )

    def change(self, method: str, path: str, body: object = None, item: str = "") -> TestResponse:
        """Send a change of an item with its present tag."""
        return self.api.change(method, path, body, item=item or None)

    def state(self, change: str) -> str:
        """Return the state of a change."""
        return str(self.api.get(f"/changes/{change}").json["state"])

    def records(self, query: str) -> list[dict[str, Any]]:
        """Return stored audit records, newest first."""
        found: list[dict[str, Any]] = self.api.get(f"/audit?{query}").json["items"]
        return found


@contextmanager
def running_approval_site(
    directory: Path, database_url: str, approvals: Mapping[str, Any] | None = None
) -> Iterator[ApprovalSite]:
    """Make a site; its databases are closed in the end."""
    acts = sorted(APPROVED_ACTS.union(get_args(ConfirmedAct)) - {"scope.grant", *OF_EVERY_CLIENT})
    overrides = {"approvals": {"acts": acts, **(approvals or {})}}
    with running_admin_site(directory, database_url, overrides) as site:
        yield ApprovalSite(site)


def find_standby(approvals: ApprovalSite) -> str:
    """Return the path of a key that may be activated."""
    for _ in range(2):
        keys = approvals.api.get("/rings/es256/keys").json["items"]
        for each in keys:
            if each["state"] == "published" and not each["signs"]:
                return f"/rings/es256/keys/{each['kid']}"
        answer = approvals.change("POST", "/rings/es256/rotate", {"reason": "x"}, "/rings/es256")
        assert answer.status_code == 200, answer.text
    raise AssertionError("the ring makes no standby")


def set_stop(approvals: ApprovalSite, client: str, reason: str = "leaked") -> str:
    subject = client.removeprefix("/clients/")
    body = {"kind": "client", "subject": subject, "reason": reason}
    assert approvals.api.send("POST", "/stops", json=body).status_code == 201
    return f"/stops/client/{subject}"


def request_act(
    approvals: ApprovalSite, act: str, client: str, query: str = ""
) -> tuple[TestResponse, str]:
    """Send a request for an act of ``[approvals]``; return the answer and the path of the item.

    Args:
        approvals: the site.
        act: the act.
        client: the path of a client with a secret.
        query: the query string of the request.
    """
    api = approvals.api
    match act:
        case "scope.grant_money":
            body = {"allowed_scopes": ["mapper/link", MONEY]}
            return approvals.change("PATCH", f"{client}{query}", body, client), client
        case "client.add_credential":
            return api.send("POST", f"{client}/secrets{query}", json={}), client
        case "client.change_keys":
            body = {"authentication_method": "private_key_jwt", "properties": KEYS}
            return approvals.change("PATCH", f"{client}{query}", body, client), client
        case "operator.change_role":
            body = {"allowed_scopes": ["clients:read"]}
            return approvals.change("PATCH", f"{client}{query}", body, client), client
        case "stop.lift":
            stop = set_stop(approvals, client)
            return approvals.change("POST", f"{stop}/lift{query}", {"reason": "over"}, stop), stop
    key = find_standby(approvals)
    body = {"reason": "planned", "emergency": True}
    return approvals.change("POST", f"{key}/activate{query}", body, key), key
