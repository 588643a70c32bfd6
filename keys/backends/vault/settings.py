"""Settings of a Vault or OpenBao: its addresses, its login, its time-outs."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultLogin:
    """The identity to log in with.

    Attributes:
        method: ``approle``, ``kubernetes``, ``jwt``, ``cert`` or ``token``.
        mount: the mount path of the method; empty: its default.
        role: the name of the role, for kubernetes, jwt and cert.
        role_id: the role's id, for approle.
        secret_id_file: the file with the secret id, or with the token that wraps it.
        secret_id_wrapped: True if that file has a wrapping token.
        jwt_file: the file with the JWT, for kubernetes and jwt.
        token_file: the file in which an agent writes a token, for token.
        certificate_file: the TLS client certificate, for cert.
        private_key_file: the private key of the certificate.
        token: a token itself, for token; an operator's own.
        private_files: refuse a file that others can read, each time it is read.
    """

    method: str
    mount: str = ""
    role: str = ""
    role_id: str = ""
    secret_id_file: str = ""
    secret_id_wrapped: bool = False
    jwt_file: str = ""
    token_file: str = ""
    certificate_file: str = ""
    private_key_file: str = ""
    token: str = field(default="", repr=False)
    private_files: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAccess:
    """One Vault: its addresses, its login, its time-outs.

    Attributes:
        addresses: the base URLs of its nodes, preferred first.
        login: the identity to log in with.
        namespace: the namespace of every path; empty: none.
        ca_file: the CA of its certificates; empty: those of the system.
        connect_timeout_seconds: the time-out of one connection.
        read_timeout_seconds: the time-out of one answer.
        total_timeout_seconds: the time-out of one call with its retry.
    """

    addresses: tuple[str, ...]
    login: VaultLogin
    namespace: str = ""
    ca_file: str = ""
    connect_timeout_seconds: float = 0.3
    read_timeout_seconds: float = 1.0
    total_timeout_seconds: float = 1.5
