"""The places that a private key may live in, each behind ``keys.backend.KeyBackend``."""
