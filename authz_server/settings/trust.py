"""Settings of client authentication, bound tokens and registration: one frozen struct a table."""

from typing import Annotated

from msgspec import Meta

from authz_server.settings.constraints import Branch


class RegistrationSettings(Branch, frozen=True):
    """``[registration]``: dynamic registration of clients (RFC 7591, RFC 7592)."""

    enabled: bool = False
    maximum_clients: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    secret_lifetime_days: Annotated[int, Meta(ge=0, le=3_650)] = 0
    requests_per_window: Annotated[int, Meta(ge=1, le=1_000_000)] = 60
    window_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
