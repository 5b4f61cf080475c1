"""One open Director: its workers, results, timers, health and hooks."""
