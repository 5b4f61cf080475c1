"""The devices of an open Director: found and given back, watched, and left alone for a while after failures."""
