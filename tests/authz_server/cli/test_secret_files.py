import click
import pytest

from authz_server.cli.secret_files import read_secret, require_new_file
from authz_server.errors import ConflictError
from authz_server.operations.private_files import without_line_break, write_private_file


def test_a_private_file_is_for_its_owner_alone_and_never_overwritten(tmp_path):
    """Case G85."""
    path = tmp_path / "secret"
    write_private_file(path, b"first")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError, match="exists"):
        write_private_file(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_file_that_cannot_be_made_is_refused_before_anything_happens(tmp_path):
    (tmp_path / "there").touch()
    with pytest.raises(click.ClickException, match="exists"):
        require_new_file(tmp_path / "there")
    with pytest.raises(click.ClickException, match="not a folder"):
        require_new_file(tmp_path / "nowhere" / "secret")
    require_new_file(tmp_path / "new")
    require_new_file(None)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_one_line_break_at_the_end_is_no_part_of_a_secret(tmp_path, ending):
    path = tmp_path / "secret"
    path.write_bytes(b" a secret " + ending)
    secret = read_secret(secret_prompt=False, secret_stdin=False, secret_file=path)
    assert secret == b" a secret "
    assert without_line_break(b"two\n\n") == b"two\n"


def test_an_editors_mark_is_no_part_of_a_secret():
    """Case R243."""
    assert without_line_break(b"\xef\xbb\xbfsecret\r\n") == b"secret"


def test_a_secret_comes_one_way_or_not_at_all(tmp_path):
    assert read_secret(secret_prompt=False, secret_stdin=False, secret_file=None) is None
    with pytest.raises(click.UsageError, match="one way"):
        read_secret(secret_prompt=False, secret_stdin=True, secret_file=tmp_path / "secret")
