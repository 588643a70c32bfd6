"""Backends that store encrypted private keys in the database or in a file."""
