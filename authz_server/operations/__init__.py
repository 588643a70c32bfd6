"""Acts of operators, as functions that take values and return them: no printing, no options."""
