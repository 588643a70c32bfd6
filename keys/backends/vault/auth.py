"""The login methods of a Vault."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from keys.backends.vault.errors import FIRST_ERROR_STATUS, data_of, require_success
from keys.backends.vault.http import VaultHttp, VaultRequest
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.backends.vault.values import number_of
from keys.backends.vault.wrapping import UnwrappedSecret, unwrap_secret_id
from keys.errors import BackendDenied, BackendUnavailable, KeysError
from keys.events import Notify
from keys.private_files import find_exposure, open_regular

KUBERNETES_JWT_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
# It goes into a header.
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class VaultToken:
    """A token of a Vault.

    Attributes:
        value: the token.
        lease_seconds: its remaining lifetime; zero: unlimited or unknown.
        renewable: True if it can be renewed.
        uses: the number of requests that it may make, including renewals; zero: unlimited.
    """

    value: str = field(repr=False)
    lease_seconds: float
    renewable: bool
    uses: int = 0


class Login(Protocol):
    """A login method, which returns a token."""

    @property
    def gives_new_tokens(self) -> bool:
        """Whether logging in again makes a new token, which then is ours alone to end."""

    def log_in(self, http: VaultHttp, deadline: float) -> VaultToken:
        """Return a token.

        Args:
            http: the Vault.
            deadline: the monotonic time at which the login must end.

        Raises:
            BackendDenied: the credentials are missing or refused.
            BackendUnavailable: the Vault cannot be reached.
        """


def make_login(access: VaultAccess, notify: Notify) -> Login:
    """Return the login that ``access`` describes.

    Raises:
        KeysError: there is no such method, or a setting of it is missing.
    """
    login = access.login
    maker = LOGINS.get(login.method)
    if maker is None:
        known = ", ".join(LOGINS)
        raise KeysError(f"{login.method!r} is not a way to log in to a Vault known here: {known}")
    return maker(access, notify)


class AppRoleLogin:
    """Logs in by role id and secret id; the secret id may be wrapped."""

    gives_new_tokens = True

    def __init__(self, access: VaultAccess, notify: Notify) -> None:
        self._login = _require(access.login, "role_id", "secret_id_file")
        self._access = access
        self._notify = notify
        self._unwrapped: UnwrappedSecret | None = None
        self._accepted = b""

    def log_in(self, http: VaultHttp, deadline: float) -> VaultToken:
        """Log in with the present secret id in the file."""
        login = self._login
        secret_id = self._unwrap(http, deadline) if login.secret_id_wrapped else self._read()
        digest = sha256(secret_id.encode()).digest()
        body = {"role_id": login.role_id, "secret_id": secret_id}
        try:
            token = _log_in(http, deadline, login.mount or "approle", body, "by AppRole")
        except BackendDenied as error:
            if digest != self._accepted:
                raise
            raise BackendDenied(
                f"{error}; it has logged in before, so it has ended or was good for a few logins "
                "only (secret_id_ttl, secret_id_num_uses): put a new secret id into "
                f"{login.secret_id_file}"
            ) from error
        self._accepted = digest
        return token

    def _read(self) -> str:
        return _read(self._login, self._login.secret_id_file)

    def _unwrap(self, http: VaultHttp, deadline: float) -> str:
        wrapping_token = self._read()
        held = self._unwrapped
        if held is None or not held.came_from(wrapping_token):
            held = unwrap_secret_id(wrapping_token, self._access, http, deadline, self._notify)
            self._unwrapped = held
        return held.secret_id


class KubernetesLogin:
    """Logs in by the JWT of the service account, which the cluster renews in its file."""

    gives_new_tokens = True

    def __init__(self, access: VaultAccess, _: Notify) -> None:
        self._login = _require(access.login, "role")

    def log_in(self, http: VaultHttp, deadline: float) -> VaultToken:
        """Log in with the present JWT in the file."""
        login = self._login
        body = {"role": login.role, "jwt": _read(login, login.jwt_file or KUBERNETES_JWT_FILE)}
        return _log_in(http, deadline, login.mount or "kubernetes", body, "by Kubernetes")


class JwtLogin:
    """Logs in by a JWT that another program writes to a file."""

    gives_new_tokens = True

    def __init__(self, access: VaultAccess, _: Notify) -> None:
        self._login = _require(access.login, "role", "jwt_file")

    def log_in(self, http: VaultHttp, deadline: float) -> VaultToken:
        """Log in with the present JWT in the file."""
        login = self._login
        body = {"role": login.role, "jwt": _read(login, login.jwt_file)}
        return _log_in(http, deadline, login.mount or "jwt", body, "by JWT")


class CertificateLogin:
    """Logs in by the TLS client certificate of every connection."""

    gives_new_tokens = True

    def __init__(self, access: VaultAccess, _: Notify) -> None:
        self._login = _require(access.login, "certificate_file")
        if not all(address.startswith("https://") for address in access.addresses):
            raise KeysError("a login by TLS certificate needs https addresses")

    def log_in(self, http: VaultHttp, deadline: float) -> VaultToken:
        """Log in with the certificate's role, or with any role that matches it."""
        login = self._login
        _require_private(login, login.private_key_file)
        # Such certificates live for days or hours, and are replaced in their files.
        http.load_client_certificate()
        body = {"name": login.role} if login.role else {}
        return _log_in(http, deadline, login.mount or "cert", body, "by TLS certificate")


class TokenLogin:
    """Uses an existing token: from a file that an agent writes, or of an operator."""

    gives_new_tokens = False

    def __init__(self, access: VaultAccess, _: Notify) -> None:
        self._login = access.login
        if not (self._login.token or self._login.token_file):
            raise KeysError("a login by token needs a token or token_file")

    def log_in(self, http: VaultHttp, deadline: float) -> VaultToken:
        """Return the present token with its data in the Vault."""
        login = self._login
        value = login.token or _read(login, login.token_file)
        try:
            data = look_up(value, http, deadline)
        except BackendDenied:
            # Dead, or not allowed to look itself up: its first use will show.
            return VaultToken(value, 0, renewable=False)
        # The agent that keeps the file also renews what is in it.
        renewable = bool(data.get("renewable")) and not login.token_file
        return VaultToken(value, number_of(data, "ttl"), renewable)


LOGINS: Mapping[str, Callable[[VaultAccess, Notify], Login]] = MappingProxyType(
    {
        "approle": AppRoleLogin,
        "kubernetes": KubernetesLogin,
        "jwt": JwtLogin,
        "cert": CertificateLogin,
        "token": TokenLogin,
    }
)


def renew(token: VaultToken, http: VaultHttp, deadline: float) -> VaultToken:
    """Return ``token`` with its new lease.

    Raises:
        BackendDenied: the Vault refuses the renewal.
        BackendUnavailable: the Vault cannot be reached.
    """
    request = VaultRequest("POST", "auth/token/renew-self", {}, repeatable=False)
    reply = http.send(request, token.value, deadline)
    if reply.status >= FIRST_ERROR_STATUS:
        # Past its longest life this is a status 500; every refusal here has the same cure.
        raise BackendDenied("the Vault does not renew the token")
    return _token(reply.body)


def look_up(token: str, http: VaultHttp, deadline: float) -> Mapping[str, Any]:
    """Return the data of ``token`` in the Vault.

    Raises:
        BackendDenied: the token is invalid, or may not look itself up.
        BackendUnavailable: the Vault cannot be reached.
    """
    reply = http.send(VaultRequest("GET", "auth/token/lookup-self"), token, deadline)
    return data_of(require_success(reply, "looking up the Vault token"))


def _log_in(
    http: VaultHttp, deadline: float, mount: str, credentials: Mapping[str, str], method: str
) -> VaultToken:
    request = VaultRequest("POST", f"auth/{mount}/login", credentials, repeatable=False)
    reply = http.send(request, "", deadline)
    return _token(require_success(reply, f"logging in to the Vault {method}"))


def _token(reply: Mapping[str, Any]) -> VaultToken:
    auth = reply.get("auth")
    if not isinstance(auth, Mapping):
        # A Vault that refuses says so: this answer tells nothing about the credentials.
        raise BackendUnavailable("a login or renewal was answered without a token", 1)
    value = auth.get("client_token")
    if not value:
        raise BackendDenied(
            "the login was answered without a token: the Vault may ask for a second factor"
        )
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise BackendUnavailable("a login or renewal was answered with no token of a Vault", 1)
    return VaultToken(
        value,
        number_of(auth, "lease_duration"),
        renewable=bool(auth.get("renewable")),
        uses=number_of(auth, "num_uses"),
    )


def _require(login: VaultLogin, *names: str) -> VaultLogin:
    missing = [name for name in names if not getattr(login, name)]
    if missing:
        raise KeysError(f"a login to a Vault by {login.method} needs {', '.join(missing)}")
    return login


def _read(login: VaultLogin, path: str) -> str:
    try:
        with open_regular(path) as file:
            _require_unexposed(login, path, os.fstat(file.fileno()))
            # An editor's byte order mark is read over.
            content = file.read().decode("utf-8-sig").strip()
    except OSError as error:
        raise BackendDenied(f"the credential for the Vault cannot be read: {error}") from error
    except UnicodeDecodeError:
        raise BackendDenied(f"the credential for the Vault in {path} is not UTF-8") from None
    if not content:
        raise BackendDenied(f"the credential for the Vault in {path} is empty")
    return content


def _require_private(login: VaultLogin, path: str) -> None:
    if not path:
        return
    try:
        status = Path(path).stat()
    except OSError as error:
        raise BackendDenied(f"the credential for the Vault cannot be read: {error}") from error
    _require_unexposed(login, path, status)


def _require_unexposed(login: VaultLogin, path: str, status: os.stat_result) -> None:
    exposure = find_exposure(status) if login.private_files else None
    if exposure is not None:
        raise BackendDenied(
            f"the credential for the Vault in {path} {exposure.problem}: {exposure.command} {path}"
        )
