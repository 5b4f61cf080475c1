"""Shared by the executors with other processes."""
