"""Calls in Ray actors, on the GPUs of a cluster."""
