"""Hostile objects through every door of a Director."""
