"""Which job runs on which slot, and when. One lock; no asyncio, no I/O."""
