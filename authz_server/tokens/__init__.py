"""Access tokens: what goes into one, and the one door through which one comes back in."""
