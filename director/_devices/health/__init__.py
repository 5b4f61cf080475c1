"""Whether a device can be used: NVML's events and figures, probes, and the rules that decide."""
