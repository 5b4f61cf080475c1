"""For tests: devices without GPUs, a clock that a test moves, and what every executor must do."""

from director._device import SimulatedDevice, simulated_devices
from director.testing.clock import TestClock
from director.testing.executors import check_executor

__all__ = ["SimulatedDevice", "TestClock", "check_executor", "simulated_devices"]
