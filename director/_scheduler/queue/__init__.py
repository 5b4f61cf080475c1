"""What waits, in the order in which it is served."""
