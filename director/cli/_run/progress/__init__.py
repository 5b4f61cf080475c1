"""What is told of a run: `tally` (counts), `meter` and `eta` (readings), `views` and `bars` (progress), and reports.

The reports: `dry_run` before the run, `summary` and `report` after it.
"""
