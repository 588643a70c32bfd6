"""The admin API: operations over HTTP, on a listener of its own."""
