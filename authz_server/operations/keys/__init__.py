"""Operations on signing keys: orders, ticks, the status of rings, drills, and examinations."""
