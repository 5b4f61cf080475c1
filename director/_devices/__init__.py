"""Discovery and health of GPUs."""
