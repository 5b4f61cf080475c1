"""How a call is made: in a thread, in a child process, in a Ray actor."""
