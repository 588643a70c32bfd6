"""The key life cycle: timing, rules, plans, orders and the rotator that applies them."""
