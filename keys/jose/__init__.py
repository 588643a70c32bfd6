"""JOSE: algorithms, public keys as JWK, compact tokens, signatures."""
