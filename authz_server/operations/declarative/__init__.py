"""The declarative file: clients, resource servers and scopes as text for review in git."""
