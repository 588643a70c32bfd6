"""The scope catalogue: scopes, their spellings and the resource servers that own them."""
