"""Whether a device can be used: NVML's events and readings, probes, and the rules that decide."""
