"""Benchmarks for the developers of `director`: `python -m benchmarks.NAME` with this folder's parent on the path.

`theory` runs the experiments that check the design, `chaos` the storms. The noxfile has a session for each.
What a user would measure on a machine of their own is `director bench`.
"""
