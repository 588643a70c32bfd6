"""Key rings with SQL and settings: tables, store, nodes, consumers, backends and jobs."""
