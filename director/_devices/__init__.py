"""Which devices there are: NVML's inventory and CUDA's own answer, joined by UUID.

Bottom up: `gpu` (what NVML found), `mask` (CUDA_VISIBLE_DEVICES), `nvml` (the only importer of pynvml), `cuda` (asks
CUDA in a child process, which runs `cuda_probe`); `survey` (the join); `discovery` (what a user may write).
"""
