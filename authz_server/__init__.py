"""The authorization server: everything that knows OAuth or HTTP."""

__version__ = "0.1.0"
