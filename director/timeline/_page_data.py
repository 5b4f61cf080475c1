"""A story's jobs as columns of small whole numbers, deflated: the data of the page's script.

Times are microseconds since the beginning of the story, and negative for what began before.
"""

from __future__ import annotations

import base64
import json
import zlib
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from director._format import colours
from director.timeline._figures import queue_depth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director.timeline._story import Story

STATES = ("succeeded", "failed", "cancelled", "running", "queued", "retried")


class StringTable:
    """Numbers the distinct strings of a column, in the order in which they occur."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, word: str | None) -> int:
        """Its number; -1 for none."""
        return -1 if word is None else self._numbers.setdefault(word, len(self._numbers))

    def all(self) -> list[str]:
        """The strings by their numbers."""
        return list(self._numbers)


def packed(story: Story) -> str:
    """The document, deflated and in base 64."""
    text = json.dumps(document(story), separators=(",", ":"), ensure_ascii=False)
    deflate = zlib.compressobj(9, wbits=-15)  # "deflate-raw" of the browsers
    return base64.b64encode(deflate.compress(text.encode("utf-8", "backslashreplace")) + deflate.flush()).decode(
        "ascii"
    )


def document(story: Story) -> dict[str, Any]:
    """What the script needs: slots, words, columns of jobs and tries, steps of the queue, loads and memory."""
    names, errors = StringTable(), StringTable()
    devices = {device: number for number, device in enumerate(story.devices)}

    def moment(at: float) -> int:
        return round((at - story.since) * 1e6)

    def length(began: float | None, ended: float | None) -> int:
        return -1 if began is None or ended is None else max(0, round((ended - began) * 1e6))

    jobs = (*story.jobs, *story.tries)
    depth = [(moment(at), waiting) for at, waiting in queue_depth(story)]
    return {
        "span": moment(story.until),
        "devices": [{"label": device.label, "name": device.name} for device in devices],
        "slots": [devices[device] for device in story.slots],
        "states": STATES,
        "jobs": {
            "id": deltas(job.job for job in jobs),
            "name": [names.number(job.name) for job in jobs],
            "state": [STATES.index(job.state) for job in jobs],
            "slot": [-1 if job.slot is None else job.slot for job in jobs],
            "submitted": deltas(moment(job.submitted) for job in jobs),
            "waited": [length(job.submitted, job.ended if job.started is None else job.started) for job in jobs],
            "ran": [length(job.started, job.ended) for job in jobs],
            "lag": [-1 if job.started is None else length(job.ended, job.settled) for job in jobs],
            "error": [errors.number(job.error) for job in jobs],
        },
        "names": names.all(),
        "colours": _colours_of(names.all()),
        "errors": errors.all(),
        "queue": {"at": deltas(at for at, _ in depth), "jobs": deltas(waiting for _, waiting in depth)},
        "loads": [
            [devices[load.device], moment(load.began), moment(load.ended), load.model, load.error]
            for load in story.loads
        ],
        "memory": {
            "at": deltas(moment(sample.at) for sample in story.memory),
            "process": [sample.process for sample in story.memory],
            "devices": [[sample.devices.get(device.label) for sample in story.memory] for device in devices],
        },
    }


def _colours_of(names: list[str]) -> list[int]:
    numbers = colours(names)
    return [numbers[name] for name in names]


def deltas(numbers: Iterable[int]) -> list[int]:
    """The first number, then each one's distance from the one before: small numbers compress well."""
    return [after - before for before, after in pairwise(chain((0,), numbers))]
