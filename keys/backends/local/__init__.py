"""Backends that hold encrypted private keys: in the database or in files."""
