"""Counts that the processes of several nodes share, in the database or in Redis."""
