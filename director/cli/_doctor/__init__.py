"""`director doctor`: gathers facts, and derives findings from them by rules that don't access the machine."""
