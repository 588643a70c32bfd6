"""Signing keys: rings, their lifecycle, and the backends that sign."""
