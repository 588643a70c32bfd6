"""Acts of root at an OpenBao server, before and during a test."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import hvac
import requests

_TIMEOUT_SECONDS = 20


class RoleCredentials(NamedTuple):
    """What an application needs to log in by AppRole."""

    role_id: str
    secret_id: str


class OpenBaoAdmin:
    """Root on one server, in one namespace. `client` is the hvac client; `call` any other path."""

    def __init__(self, address: str, token: str, ca_file: str = "", namespace: str = "") -> None:
        session = requests.Session()
        session.trust_env = False
        session.verify = ca_file or True
        self.client = hvac.Client(
            url=address,
            token=token,
            session=session,
            verify=ca_file or True,
            timeout=_TIMEOUT_SECONDS,
            namespace=namespace or None,
        )

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call `/v1/{path}`; return the reply's JSON, empty if it has none."""
        reply = self.client.adapter.request(method, f"/v1/{path}", json=body)
        return reply if isinstance(reply, dict) else {}

    def close(self) -> None:
        """Close its connections."""
        self.client.adapter.close()

    # ------------------------------------------------------------------------------- engines

    def enable_transit(self, mount: str = "transit") -> None:
        """Mount a transit engine."""
        self.client.sys.enable_secrets_engine("transit", path=mount)

    def enable_kv(self, mount: str = "kv") -> None:
        """Mount a KV engine, version 2."""
        self.client.sys.enable_secrets_engine("kv", path=mount, options={"version": "2"})

    def disable_engine(self, mount: str) -> None:
        """Unmount an engine with all that it holds."""
        self.client.sys.disable_secrets_engine(mount)

    def create_key(self, name: str, kind: str = "ecdsa-p256", *, mount: str = "transit") -> None:
        """Make a transit key of version 1."""
        self.client.secrets.transit.create_key(name, key_type=kind, mount_point=mount)

    def read_key(self, name: str, *, mount: str = "transit") -> dict[str, Any]:
        """Return what transit shows of a key."""
        return self.client.secrets.transit.read_key(name, mount_point=mount)["data"]

    def rotate_key(self, name: str, *, mount: str = "transit") -> int:
        """Make the next version; return its number."""
        reply = self.client.secrets.transit.rotate_key(name, mount_point=mount)
        return reply["data"]["latest_version"]

    def configure_key(self, name: str, *, mount: str = "transit", **settings: Any) -> None:
        """Write a key's configuration as it is given."""
        self.call("POST", f"{mount}/keys/{name}/config", settings)

    def soft_delete_key(self, name: str, *, mount: str = "transit") -> None:
        """Switch a key off."""
        self.call("DELETE", f"{mount}/keys/{name}/soft-delete")

    def restore_key(self, name: str, *, mount: str = "transit") -> None:
        """Switch a soft-deleted key on again."""
        self.call("POST", f"{mount}/keys/{name}/soft-delete-restore")

    # ------------------------------------------------------------------------------ identities

    def write_policy(self, name: str, text: str) -> None:
        """Write a policy in HCL."""
        self.client.sys.create_or_update_policy(name, text)

    def create_token(self, policies: Sequence[str], **settings: Any) -> str:
        """Return a new service token without the default policy, unless `settings` say more."""
        options = {"no_default_policy": True, "no_parent": True} | settings
        reply = self.client.auth.token.create(policies=list(policies), **options)
        return reply["auth"]["client_token"]

    def revoke_token(self, token: str) -> None:
        """End a token at once."""
        self.client.auth.token.revoke(token)

    def enable_auth(self, method: str, mount: str = "") -> None:
        """Mount a login method, unless it is there."""
        path = mount or method
        if f"{path}/" not in self.client.sys.list_auth_methods()["data"]:
            self.client.sys.enable_auth_method(method, path=path)

    def create_approle(
        self, role: str, policies: Sequence[str], *, mount: str = "approle", **settings: Any
    ) -> RoleCredentials:
        """Make an AppRole role, and the method if need be; return a first secret id.

        `settings` are the role's own, such as `token_period="60s"` or `token_max_ttl="5s"`.
        """
        self.enable_auth("approle", mount)
        body = {"token_policies": list(policies), "token_no_default_policy": True} | settings
        self.call("POST", f"auth/{mount}/role/{role}", body)
        role_id = self.call("GET", f"auth/{mount}/role/{role}/role-id")["data"]["role_id"]
        return RoleCredentials(role_id, self.create_secret_id(role, mount=mount))

    def create_secret_id(self, role: str, *, mount: str = "approle") -> str:
        """Return another secret id of a role."""
        reply = self.call("POST", f"auth/{mount}/role/{role}/secret-id", {})
        return reply["data"]["secret_id"]

    def wrap_secret_id(self, role: str, *, mount: str = "approle", seconds: int = 60) -> str:
        """Return a token that wraps another secret id of a role."""
        path = f"/v1/auth/{mount}/role/{role}/secret-id"
        return self.client.adapter.post(path, wrap_ttl=f"{seconds}s")["wrap_info"]["token"]

    def create_jwt_role(  # noqa: PLR0913 - a role's parts
        self,
        role: str,
        policies: Sequence[str],
        public_keys: Sequence[str],
        *,
        audience: str,
        subject: str,
        mount: str = "jwt",
    ) -> None:
        """Have JWTs of that audience and subject, signed by one of the PEM keys, log in."""
        self.enable_auth("jwt", mount)
        self.call("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": list(public_keys)})
        body = {"role_type": "jwt", "user_claim": "sub", "token_no_default_policy": True}
        bound = {"bound_audiences": [audience], "bound_subject": subject}
        path = f"auth/{mount}/role/{role}"
        self.call("POST", path, body | bound | {"token_policies": list(policies)})

    def create_certificate_role(
        self, role: str, policies: Sequence[str], ca_pem: str, *, mount: str = "cert"
    ) -> None:
        """Have TLS clients with certificates of that CA and common name `role` log in."""
        self.enable_auth("cert", mount)
        body = {"certificate": ca_pem, "allowed_common_names": [role]}
        tokens = {"token_policies": list(policies), "token_no_default_policy": True}
        self.call("POST", f"auth/{mount}/certs/{role}", body | tokens)

    def create_kubernetes_role(  # noqa: PLR0913 - a role's parts
        self,
        role: str,
        policies: Sequence[str],
        *,
        host: str,
        ca_pem: str,
        reviewer_jwt: str,
        account: str,
        mount: str = "kubernetes",
    ) -> None:
        """Have service accounts that the TokenReview API at `host` confirms log in."""
        self.enable_auth("kubernetes", mount)
        config = {"kubernetes_host": host, "kubernetes_ca_cert": ca_pem}
        local = {"token_reviewer_jwt": reviewer_jwt, "disable_local_ca_jwt": True}
        self.call("POST", f"auth/{mount}/config", config | local)
        namespace, _, name = account.partition("/")
        body = {"bound_service_account_names": [name], "token_no_default_policy": True}
        bound = {"bound_service_account_namespaces": [namespace], "token_policies": list(policies)}
        self.call("POST", f"auth/{mount}/role/{role}", body | bound)

    # ------------------------------------------------------------------------------- the rest

    def create_namespace(self, name: str) -> None:
        """Make a child namespace."""
        self.call("POST", f"sys/namespaces/{name}", {})

    def limit_rate(self, name: str, path: str, requests_per_second: float) -> None:
        """Have a path answer 429 beyond a rate; see `unlimit_rate`."""
        body = {"path": path, "rate": requests_per_second, "interval": "1s"}
        self.call("POST", f"sys/quotas/rate-limit/{name}", body)

    def unlimit_rate(self, name: str) -> None:
        """Take a limit away."""
        self.call("DELETE", f"sys/quotas/rate-limit/{name}")
