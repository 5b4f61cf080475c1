"""Reads users' objects, numbers, keys and texts.

The only place that runs their code outside of calls; never trusts it.
"""
