"""The demonstration: issue, use, introspect and revoke a token on a fresh server."""
