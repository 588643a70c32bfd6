"""Client authentication: credentials in a request, secret verification, throttling."""
