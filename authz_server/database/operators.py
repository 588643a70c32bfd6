"""Tables of operators, their roles and their enrolments."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from authz_server.database.orm import Base

MAXIMUM_NAME_CHARACTERS = 100
_DIGEST_BYTES = 32


class Operator(Base):
    """A person who administers the server, and logs in with a passkey."""

    __tablename__ = "operator"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(MAXIMUM_NAME_CHARACTERS), unique=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    roles: Mapped[list["OperatorRole"]] = relationship(
        cascade="all, delete-orphan", order_by="OperatorRole.role"
    )


class OperatorRole(Base):
    """A role of an operator, with its limits; an empty list does not limit."""

    __tablename__ = "operator_role"

    operator_id: Mapped[str] = mapped_column(
        ForeignKey("operator.id", ondelete="CASCADE"), primary_key=True
    )
    role: Mapped[str] = mapped_column(String(40), primary_key=True)
    resource_servers: Mapped[list[str]]  # ids
    organisations: Mapped[list[str]]
    # An approver does not decide on what was filed before.
    granted_at: Mapped[datetime]


class OperatorEnrolment(Base):
    """A link by which an operator registers a passkey, once; stored as a digest."""

    __tablename__ = "operator_enrolment"
    __table_args__ = (Index(None, "operator_id"), Index(None, "expires_at"))

    digest: Mapped[bytes] = mapped_column(LargeBinary(_DIGEST_BYTES), primary_key=True)
    operator_id: Mapped[str] = mapped_column(ForeignKey("operator.id", ondelete="CASCADE"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
