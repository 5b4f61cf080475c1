"""Tests of what shows a Director at work."""
