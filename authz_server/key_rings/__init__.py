"""The key rings' tables, nodes, backends and jobs: what ``keys`` leaves to SQL and settings."""
