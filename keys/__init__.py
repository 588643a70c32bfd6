"""Signing keys: their states, their rules, and the rings that sign and verify with them."""
