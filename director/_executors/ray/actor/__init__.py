"""What runs in an actor."""
