"""Benchmarks of `director` beside what people use. Standard library only; the command line imports it on demand.

Each experiment runs in a process of its own (see `apart`), gives every contender the same work in interleaved rounds
(see `rounds`) and fills a `Sheet` (see `sheet`). `goals` judges ratios between cells of one run; `report` prints them.
"""
