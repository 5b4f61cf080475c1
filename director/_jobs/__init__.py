"""The job, its options, model and stream, and the protocol of what runs it."""
