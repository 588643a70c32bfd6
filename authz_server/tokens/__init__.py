"""Access tokens: authorization rules, claims, issuing, verification, introspection, revocation."""
