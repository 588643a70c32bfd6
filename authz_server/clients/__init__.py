"""Clients and resource servers: who may ask, and how they prove it."""
