"""The database: connections and what they depend on, the schema, the clock, the primary."""
