"""Which GPUs there are, and how they are."""
