"""The memory of the devices: who has how much of it, which models are resident, and which make room for others."""
