"""The people who administer: log-in by OpenID Connect or by passkey, and their sessions."""
