"""The secrets of new clients: generated into files, imported from files, or none."""

import pytest

from authz_server.errors import ConflictError
from authz_server.operations import client_secrets
from authz_server.operations.client_search import ClientFilters, find_clients

CLIENT = '[clients.ministry]\nname = "Ministry"\nallowed_scopes = ["mapper/link"]\n'


def test_no_secret_is_in_a_file_or_a_plan(files, operator, tmp_path):
    """A secret is written to its file alone, and an existing client keeps its own."""
    plan = files.apply(CLIENT, secret_directory=tmp_path / "secrets")
    path = tmp_path / "secrets" / "ministry"
    secret = path.read_text().strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert plan.changes[0].secret == "generated"
    assert secret not in files.export() + repr(plan)
    files.apply(CLIENT.replace("Ministry", "State"), secret_directory=tmp_path / "secrets")
    assert path.read_text().strip() == secret
    assert len(client_secrets.list_secrets(operator.services, "ministry", kind="client")) == 1


@pytest.mark.parametrize("method", ["private_key_jwt", "client_secret"])
def test_a_client_gets_no_secret_that_it_does_not_need_or_that_has_no_folder(
    files, operator, tmp_path, method
):
    """Without a folder none is made; a client that signs assertions gets none."""
    folder = tmp_path / "secrets" if method == "private_key_jwt" else None
    plan = files.apply(f'{CLIENT}authentication_method = "{method}"\n', secret_directory=folder)
    assert plan.changes[0].secret == ""
    assert client_secrets.list_secrets(operator.services, "ministry", kind="client") == ()


def test_a_secret_file_that_exists_is_never_overwritten(files, operator, tmp_path):
    """The application is refused as a whole, and the secrets that it wrote are removed."""
    (tmp_path / "ministry").write_text("kept")
    first = CLIENT.replace("ministry", "agency")
    with pytest.raises(ConflictError, match="exists"):
        files.apply(first + CLIENT, secret_directory=tmp_path)
    assert (tmp_path / "ministry").read_text() == "kept"
    assert not (tmp_path / "agency").exists()
    assert find_clients(operator.services, ClientFilters()).clients == ()


def test_an_existing_secret_is_imported(files, operator, tmp_path):
    """The file of the client in the folder becomes its first secret."""
    (tmp_path / "urn%3Ax%2Fy").write_text("an imported secret\n")
    plan = files.apply(CLIENT.replace("ministry", '"urn:x/y"'), imported_secrets=tmp_path)
    assert plan.changes[0].secret == "imported"
    (secret,) = client_secrets.list_secrets(operator.services, "urn:x/y", kind="client")
    assert secret.imported
    assert secret.pepper_fingerprint == operator.services.secrets.fingerprint
