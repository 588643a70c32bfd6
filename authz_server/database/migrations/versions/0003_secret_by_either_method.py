"""Let clients and resource servers at the former defaults send their secret by either method."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CLIENT = sa.table(
    "client", sa.column("kind", sa.String), sa.column("authentication_method", sa.String)
)
_EITHER = "client_secret"
_FORMER_DEFAULTS = {"client": "client_secret_post", "resource_server": "client_secret_basic"}


def upgrade() -> None:
    """Change the rows at the former default of their kind; other rows named a method."""
    for kind, method in _FORMER_DEFAULTS.items():
        _replace(kind, method, _EITHER)


def downgrade() -> None:
    """Set rows that allow either method to the former default of their kind."""
    for kind, method in _FORMER_DEFAULTS.items():
        _replace(kind, _EITHER, method)


def _replace(kind: str, before: str, after: str) -> None:
    op.execute(
        _CLIENT.update()
        .where(_CLIENT.c.kind == kind, _CLIENT.c.authentication_method == before)
        .values(authentication_method=after)
    )
