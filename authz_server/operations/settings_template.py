"""Render a new settings file; ``docs/configuration.md`` lists every key."""

from dataclasses import dataclass

_TEMPLATE = """\
# Settings of authz-server. Every key and its default: docs/configuration.md.
# Relative paths are relative to this file's folder.

# The public https URL, which every token contains; clients and resource servers compare it exactly.
issuer = {issuer}

# "production" refuses settings that are for trials only.
environment = {environment}

[server]
host = {host}
port = {port}
health_port = {health_port}
# The path of the issuer, if the proxy in front keeps it; empty if the proxy strips it.
mount_prefix = {mount_prefix}
# The proxies whose X-Forwarded-For is trusted. If a proxy in front is missing here, all clients
# share its address in records and throttling.
trusted_proxies = {trusted_proxies}

[database]
# For PostgreSQL: postgresql://user@host/name; the password is in a file of its own.
url = {database_url}
{database_password}

[clients]
# Without this file no client secret can be verified: keep a copy, apart from the database's.
secret_pepper = {{ file = "secrets/pepper" }}

[keys]
# Without this file no token can be signed: keep a copy, apart from the database's.
key_encryption_key = {{ file = "secrets/key-encryption-key" }}

[audit]
# "stderr", "stdout" or a file. `authz-server audit` and the console find tokens and refusals in a
# file only.
destination = {audit_destination}
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """The values of a new settings file.

    Attributes:
        issuer: the issuer URL.
        environment: ``production`` or ``development``.
        database_url: without the password.
        database_password_file: the file with the password; empty if there is none.
        host: the address of the public listener.
        port: the port of the public listener.
        health_port: the port of the health listener.
        mount_prefix: the path of the issuer.
        trusted_proxies: IP addresses and networks of the proxies in front.
        audit_destination: ``stderr``, ``stdout`` or a file.
    """

    issuer: str
    environment: str
    database_url: str = "sqlite:///authz-server.db"
    database_password_file: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    health_port: int = 8081
    mount_prefix: str = ""
    trusted_proxies: tuple[str, ...] = ()
    audit_destination: str = "stderr"


def render_settings(answers: Answers) -> str:
    """Return the text of the settings file."""
    values = {field: _toml(getattr(answers, field)) for field in Answers.__slots__}
    file = _toml(answers.database_password_file or "secrets/database-password")
    mark = "" if answers.database_password_file else "# "
    return _TEMPLATE.format(database_password=f"{mark}password = {{ file = {file} }}", **values)


def _toml(value: str | int | tuple[str, ...]) -> str:
    """Return a number, a string or a list of strings in TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_text, value))}]"
    return str(value) if isinstance(value, int) else _toml_text(value)


def _toml_text(value: str) -> str:
    """Return a TOML basic string (TOML 1.0, strings)."""
    escaped = "".join(
        character if character.isprintable() and character not in '"\\' else _escape(character)
        for character in value
    )
    return f'"{escaped}"'


def _escape(character: str) -> str:
    return f"\\{character}" if character in '"\\' else f"\\U{ord(character):08x}"
