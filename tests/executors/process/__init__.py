"""Jobs in child processes: real ones, each fault once for real."""
