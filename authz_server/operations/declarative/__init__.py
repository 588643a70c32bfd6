"""The declarative file of what is registered, as text for review in git."""
