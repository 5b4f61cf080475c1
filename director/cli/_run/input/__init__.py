"""Which items there are: from the INPUT arguments to items with keys.

`patterns` (words to paths), `reading` (files to lines), `sources` (both to items), `items`, `keys` (what an item is
known by), `feed`, `decoders` (threads that read, and make values), `overlap` (nothing is both read and written).
"""
