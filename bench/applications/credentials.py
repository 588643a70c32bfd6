"""The one client of the applications that are compared with ours."""

CLIENT_ID = "ministry"
CLIENT_SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"  # noqa: S105 - this benchmark's own
