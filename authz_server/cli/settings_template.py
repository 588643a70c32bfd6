"""The settings file that ``init`` writes; ``docs/configuration.md`` lists every key."""

from dataclasses import dataclass

_TEMPLATE = """\
# Settings of authz-server. Every key and its default: docs/configuration.md.
# Relative paths are relative to this file's folder.

# Stands in every token, letter by letter; clients and resource servers compare it.
issuer = {issuer}

# "production" refuses what is for trying out only.
environment = {environment}

[server]
host = {host}
port = {port}
health_port = {health_port}
# The path under which a proxy in front publishes the server, where it keeps that path.
mount_prefix = {mount_prefix}

[database]
# For PostgreSQL: postgresql+psycopg://user@host/name, and the password as
# password = {{ file = "secrets/database-password" }}
url = {database_url}

[clients]
# Without this file no client secret can be checked: keep a copy apart from the database's.
secret_pepper = {{ file = "secrets/pepper" }}

[keys]
# Without this file no token can be signed: keep a copy apart from the database's.
key_encryption_key = {{ file = "secrets/key-encryption-key" }}

[audit]
destination = {audit_destination}
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """What ``init`` was told.

    Args:
        issuer: the issuer URL.
        environment: ``production`` or ``development``.
        database_url: as SQLAlchemy writes it.
        host: address of the public listener.
        port: its port.
        health_port: port of the health listener.
        mount_prefix: the issuer's path.
        audit_destination: ``stderr``, ``stdout`` or a file.
    """

    issuer: str
    environment: str
    database_url: str = "sqlite:///authz-server.db"
    host: str = "127.0.0.1"
    port: int = 8080
    health_port: int = 8081
    mount_prefix: str = ""
    audit_destination: str = "stderr"


def render_settings(answers: Answers) -> str:
    """Return the settings file's text."""
    values = {field: getattr(answers, field) for field in Answers.__slots__}
    return _TEMPLATE.format(
        **{
            field: value if isinstance(value, int) else _toml_text(value)
            for field, value in values.items()
        }
    )


def _toml_text(value: str) -> str:
    """Return a TOML basic string (TOML 1.0, strings)."""
    escaped = "".join(
        character if character.isprintable() and character not in '"\\' else _escape(character)
        for character in value
    )
    return f'"{escaped}"'


def _escape(character: str) -> str:
    return f"\\{character}" if character in '"\\' else f"\\U{ord(character):08x}"
