"""How a slot runs a call: in its own thread, or elsewhere driven by that thread."""
