"""Audit: events, the sink that records them, and detection of a restored database."""
