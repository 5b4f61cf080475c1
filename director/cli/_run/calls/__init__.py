"""When an item is called: `flow` (items to jobs to records), `submission` (jobs), `call` (on the slot's thread).

By these rules: `halt`, `retry`, and `rules`, which holds all of them.
"""
