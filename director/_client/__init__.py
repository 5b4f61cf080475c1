"""A Director whose devices are in a server process."""
