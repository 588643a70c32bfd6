"""The scope catalogue: what a token can permit, and which resource server owns it."""
