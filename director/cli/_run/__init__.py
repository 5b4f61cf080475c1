"""The parts of `director run`.

From the arguments to the exit status: `command` (what is read, written and run), then `session` (one run). Their parts,
each package importing only from those before it:

- `target`, `strict_json`, `threads`
- `input`: which items there are, and what they are known by
- `output`: what becomes of their results: records, files, and where they are written to
- `journal`: what was done: written beside the output, read by the next run
- `progress`: what is told of a run
- `calls`: when an item is called, tried again, given up
"""
