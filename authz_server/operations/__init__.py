"""The operations of operators, as functions that take values and return results."""
