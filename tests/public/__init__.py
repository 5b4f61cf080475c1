"""The public contract: what a user may rely on, tested through public names only."""
