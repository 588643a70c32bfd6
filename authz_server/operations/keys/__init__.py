"""Operations on signing keys: orders, ticks, status, drills and checks."""
