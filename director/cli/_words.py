"""Numbers and texts as people read them: the words of the house, for the commands."""

from director._words import about, count, counted, duration, percent, plain, rate

__all__ = ["about", "count", "counted", "duration", "percent", "plain", "rate"]
