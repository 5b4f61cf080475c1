"""What was done: the journal beside an output.

`syntax` (its lines), `journalled` (the only writer of an output and its journal), `history` (the reader), `plan` (what
becomes of an earlier run), `pending` (which items are run), `unchanged` (files that change meanwhile), `compaction`,
`merge`, `destination` (an output with or without a journal).
"""
