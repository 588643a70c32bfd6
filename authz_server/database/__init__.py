"""The database: connections, sessions, schema, change feed, clock and primary detection."""
