"""The result of an import: a declarative file, and a report of what does not carry over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authz_server.clients.validation import require_id, require_text
from authz_server.errors import InvalidChangeError
from authz_server.operations.declarative.document import Catalogue, Section
from authz_server.operations.declarative.export import Entries, Format, write_document
from authz_server.operations.declarative.secret_directory import SecretDirectory
from authz_server.operations.declarative.stored import catalogue_values
from authz_server.scopes.names import require_scope_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that does not carry over.

    Attributes:
        subject: the client, scope or line.
        text: what does not carry over, and the remedy if there is one.
    """

    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A declarative file made of another system's.

    Attributes:
        catalogues: the shipped catalogues that its scopes are of.
        sections: the entries by section and name.
        notes: what does not carry over, in the order of the source.
        secrets: the clients' secrets by id, if the source has them.
    """

    catalogues: tuple[Catalogue, ...]
    sections: Mapping[Section, Entries]
    notes: tuple[Note, ...]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def write(self, form: Format) -> str:
        """Return the file's text; InvalidChangeError if TOML has no form for a value."""
        return write_document(self.catalogues, self.sections, form=form)

    def write_secrets(self, folder: Path) -> int:
        """Write each secret to a new file (0600) of a folder; return how many.

        Raises:
            ConflictError: a file exists; none is written.
            OSError: a file cannot be written; none is left.
        """
        directory = SecretDirectory(folder)
        try:
            for client_id, secret in self.secrets.items():
                directory.write(client_id, secret)
            directory.sync()
        except BaseException:
            directory.discard()
            raise
        return len(self.secrets)


class Draft:
    """The entries and notes of an import while it runs."""

    def __init__(self) -> None:
        self.scopes: dict[str, dict[str, Any]] = {}
        self.clients: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, str] = {}
        self._notes: list[Note] = []
        self._shipped = {
            spelling: name
            for name, values in catalogue_values(["g2p-connect"]).items()
            for spelling in (name, *values["aliases"])
        }
        self._catalogues: set[Catalogue] = set()

    def note(self, subject: str, text: str) -> None:
        """Report something that does not carry over."""
        self._notes.append(Note(subject=subject, text=text))

    def scope_name(self, subject: str, spelling: str) -> str | None:
        """Return the canonical name of a scope; None, with a note, if it cannot be one."""
        if spelling in self._shipped:
            self._catalogues.add("g2p-connect")
            return self._shipped[spelling]
        try:
            return require_scope_name(spelling)
        except InvalidChangeError as error:
            self.note(subject, f"a scope is left out: {error}")
            return None

    def is_shipped(self, name: str) -> bool:
        """Return whether a scope is of a shipped catalogue."""
        return name in self._shipped

    def usable_id(self, subject: str, client_id: str) -> bool:
        """Return whether an id can be used; report it otherwise."""
        try:
            require_id(client_id)
        except InvalidChangeError as error:
            self.note(subject, f"left out: {error}")
            return False
        if client_id in self.clients:
            self.note(subject, f"left out: the id {client_id!r} occurs twice")
            return False
        return True

    def usable_name(self, client_id: str, name: str) -> str:
        """Return the name of a client; its id, with a note, if that cannot be one."""
        try:
            return require_text("name", name or client_id)
        except InvalidChangeError as error:
            self.note(client_id, f"its id becomes its name: {error}")
            return client_id

    def finish(self) -> Imported:
        """Return the result, ordered by name."""
        sections: dict[Section, Entries] = {"clients": dict(sorted(self.clients.items()))}
        if self.scopes:
            sections["scopes"] = dict(sorted(self.scopes.items()))
        return Imported(
            catalogues=tuple(sorted(self._catalogues)),
            sections=sections,
            notes=tuple(self._notes),
            secrets=self.secrets,
        )
