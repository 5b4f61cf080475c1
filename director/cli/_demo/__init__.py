"""The parts of `director demo`: real digits, then the same stream of jobs scheduled in three ways."""
