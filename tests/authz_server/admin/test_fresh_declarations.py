"""The age of a log-in by which declarative files are applied, by the clock of the database."""

from authz_server.operations.permissions import Caller, Grant
from keys.ring import KeyRings


def test_a_log_in_for_files_is_fresh_by_the_corrected_clock(site, monkeypatch):
    """For each permission that the files need, where it is one that needs a fresh log-in."""
    monkeypatch.setattr(
        "authz_server.operations.permissions.FRESH_PERMISSIONS", frozenset({"scopes:write"})
    )
    body = {"files": [{"name": "a.toml", "text": '[scopes."fresh/read"]\nrisk = "read"\n'}]}
    permissions = frozenset({"clients:write", "scopes:write"})
    caller = Caller(
        name="ada",
        kind="operator",
        way="console",
        grants=(Grant(permissions=permissions),),
        authenticated_at=site.clock(),
    )

    def plan() -> int:
        query = {"dry_run": True}
        return site.app.api.perform(caller, "POST", "/declaration", query=query, body=body).status

    assert plan() == 200
    monkeypatch.setattr(KeyRings, "clock_correction_seconds", 301.0)
    assert plan() == 401
