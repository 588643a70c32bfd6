"""HTTP endpoints: read strictly, call the room behind, answer."""
