"""Which XIDs, the error numbers of NVIDIA's driver, say what of a device. Data, which `HealthRules` lets users replace.

Source: NVIDIA's Xid catalog for Ampere and newer GPUs (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html),
column "Resolution Bucket (Immediate Action)", as of October 2025. What is in neither set makes a device degraded for a
while; on drivers that tell which recovery a GPU needs (R570 and newer), that decides.
"""

from __future__ import annotations

_RESET_GPU = (46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158)
_RESTART_BARE_METAL = (79,)
_OWN_WORKFLOW = (48, 74)  # uncorrectable ECC, NVLink: NVIDIA's workflows begin with draining and a reset

_RESTART_APPLICATION = (
    *(8, 11, 13, 25, 31, 32, 68, 69, 80, 94),  # illegal work, page faults; 94: memory, and only one process is hit
    *(39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136)),  # copy engines
    *(60, 82, 83, 84, 86, 88, 89, *range(96, 106), 139),  # video, JPEG and optical flow engines
)
_IGNORE = (37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 121, 137, 141, 152, 153, 157, 160, 161)
_FOLLOWS_ANOTHER = (45, 154)  # cleaning up after an error that has a number itself; "recovery action changed"

FATAL_XIDS = frozenset((*_RESET_GPU, *_RESTART_BARE_METAL, *_OWN_WORKFLOW))
"""The device must be reset, or its machine restarted, before it can be used again."""

HARMLESS_XIDS = frozenset((*_RESTART_APPLICATION, *_IGNORE, *_FOLLOWS_ANOTHER))
"""Nothing is wrong with the device: the process that it hit needs a restart, if that."""

_WORDS = {
    46: "the GPU stopped processing",
    48: "uncorrectable ECC error",
    62: "its microcontroller halted",
    64: "a row of its memory could not be remapped",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    95: "uncontained memory error",
    109: "context switch timed out",
    110: "security fault",
    119: "its system processor (GSP) does not answer",
    120: "its system processor (GSP) failed",
    136: "link training failed",
    140: "unrecovered ECC error",
    143: "the GPU could not be initialised",
    155: "NVLink error",
    156: "a resource was retired",
    158: "fatal timeout",
}


def describe_xid(number: int) -> str:
    """An XID for people: with its meaning if it is a fatal one."""
    words = _WORDS.get(number, "see NVIDIA's Xid catalog")
    return f"XID {number} ({words})"
