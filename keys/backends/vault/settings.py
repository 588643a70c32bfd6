"""Settings of a Vault or OpenBao: its addresses, its login, its time-outs."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultLogin:
    """The identity to log in with.

    Attributes:
        method: ``approle``, ``kubernetes``, ``jwt``, ``cert`` or ``token``.
        mount: Where the method is mounted; empty: its usual place.
        role: The role's name, for kubernetes, jwt and cert.
        role_id: The role's id, for approle.
        secret_id_file: The file with the secret id, or with the token that wraps it.
        secret_id_wrapped: Whether that file holds a wrapping token.
        jwt_file: The file with the JWT, for kubernetes and jwt.
        token_file: The file that an agent keeps a token in, for token.
        certificate_file: The TLS client certificate, for cert.
        private_key_file: Its private key.
        token: A token itself, for token; an operator's own.
        private_files: Whether a file that others can read is refused, each time it is read.
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
    """One Vault: its addresses, the login, how long to wait.

    Attributes:
        addresses: Base URLs of its nodes, preferred first.
        login: The identity to log in with.
        namespace: The namespace of every path; empty: none.
        ca_file: The CA that its certificates are checked with; empty: the system's.
        connect_timeout_seconds: For one connection.
        read_timeout_seconds: For one answer.
        total_timeout_seconds: For one call, with its retry.
    """

    addresses: tuple[str, ...]
    login: VaultLogin
    namespace: str = ""
    ca_file: str = ""
    connect_timeout_seconds: float = 0.3
    read_timeout_seconds: float = 1.0
    total_timeout_seconds: float = 1.5
