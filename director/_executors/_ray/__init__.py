"""An actor of a Ray cluster for each slot, driven by the slot's own thread. The only room that knows Ray."""
