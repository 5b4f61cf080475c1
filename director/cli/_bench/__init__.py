"""Benchmarks of `director` and its alternatives. Standard library only; the command line imports it on demand.

Each experiment runs in a process of its own (see `apart`), gives every contender the same work in interleaved rounds
(see `rounds`) and fills a `Sheet` (see `sheet`). `goals` evaluates ratios between cells of one run; `report` prints
them.
"""
