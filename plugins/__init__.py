"""Bundled plugins: each imports only ``authz_server.plugin_api``."""
