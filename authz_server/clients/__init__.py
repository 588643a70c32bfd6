"""Clients and resource servers: registration, secrets and authentication."""
