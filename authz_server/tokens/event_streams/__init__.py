"""Security events for resource servers (RFC 8417), pushed (RFC 8935) or polled (RFC 8936)."""
