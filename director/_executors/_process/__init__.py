"""A child process for each slot, driven by the slot's own thread: what each side does, and what goes between them."""
