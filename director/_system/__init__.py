"""What this process is told by its system: the time, threads, forks, how it was launched."""
