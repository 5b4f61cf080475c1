"""What a user holds: the Director, functions, streams, leases, an executor."""
