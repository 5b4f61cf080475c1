"""What runs on a slot's thread: a worker, which takes jobs and makes their calls."""
