"""The parts of `director demo`: the real digits, then the same stream of jobs handed out in three ways."""
