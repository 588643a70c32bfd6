import pytest

from authz_server.operations.declarative.apply import apply_declaration
from authz_server.operations.declarative.document import read_declaration
from authz_server.operations.declarative.export import export_declaration


class Files:
    """Declarative files of an operator."""

    def __init__(self, operator, folder):
        self._operator, self._folder = operator, folder

    def write(self, text, name="a.toml"):
        """Write a file; its path."""
        path = self._folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def apply(self, text, name="a.toml", **options):
        """Apply a text; the plan."""
        return self.apply_files([self.write(text, name)], **options)

    def apply_files(self, paths, **options):
        """Apply files; the plan."""
        declaration = read_declaration(paths)
        services, actor = self._operator.services, self._operator.actor
        return apply_declaration(services, declaration, actor=actor, **options)

    def export(self, form="toml", **options):
        """Return the exported text."""
        return export_declaration(self._operator.services, form=form, **options)


@pytest.fixture
def shared_files(shared_operator, tmp_path):
    """As `files`, on a database for all tests of a file that change nothing."""
    return Files(shared_operator, tmp_path)


@pytest.fixture
def files(operator, tmp_path):
    """Declarative files on each database, with the scopes of G2P Connect."""
    return Files(operator, tmp_path)
