"""Calls in child processes, one for each slot."""
