"""The ``serve`` command's server: a main process and workers with an event loop each."""
