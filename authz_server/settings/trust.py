"""Settings of client authentication, bound tokens and registration: one frozen struct a table."""
