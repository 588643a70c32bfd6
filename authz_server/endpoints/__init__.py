"""HTTP endpoints: strict request parsing, one class per endpoint, JSON responses."""
