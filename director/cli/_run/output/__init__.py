"""What becomes of results: `records` (their lines), `sinks` (what takes them), `writer` (its thread).

Files of their own: `saved` (one for each result), `whole_file` (one that is there whole or not at all).
"""
