"""Runs the application: worker processes with an event loop each, and the process above them."""
