"""What crosses between two processes: frames, descriptors, pickles, exceptions, log records."""
