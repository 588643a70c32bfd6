"""The answers of both floors: of the usual size, the same for every request."""

TOKEN: dict[str, object] = {
    "access_token": f"{'h' * 150}.{'p' * 400}.{'s' * 86}",
    "token_type": "Bearer",
    "expires_in": 900,
}
INTROSPECTION: dict[str, object] = {
    "active": True,
    "scope": "mapper/link",
    "client_id": "ministry",
    "sub": "ministry",
    "aud": "https://mapper.example",
    "iss": "https://authz.example",
    "exp": 1_800_000_900,
    "iat": 1_800_000_000,
    "jti": "0123456789abcdef0123456789abcdef",
    "token_type": "Bearer",
}
