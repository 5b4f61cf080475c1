"""What the executors with other processes share on the caller's side."""
