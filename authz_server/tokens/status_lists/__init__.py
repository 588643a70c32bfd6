"""Status lists of access tokens (draft-ietf-oauth-status-list)."""
