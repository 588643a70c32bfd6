"""Audit events, the sink that records them, and the check against a restored database."""
