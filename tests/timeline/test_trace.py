"""The trace: what Perfetto's importer asks of a Chrome trace, checked on any story."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hypothesis import given

from director.timeline import _chrome_trace as chrome
from director.timeline._story import Incident, Load, MemorySample
from timeline.stories import never_ran, ran, stories, story

if TYPE_CHECKING:
    from director.timeline._story import Story

Slices = dict[int, list[dict[str, Any]]]


def imported(trace: dict[str, Any]) -> tuple[Slices, list[tuple[Any, Any]]]:
    """What Perfetto makes of a trace: slices by thread, and flows from slice to slice.

    It sorts by time, which must change nothing here; keeps a stack of open slices for each thread; and binds the two
    ends of a flow to the innermost slice that is open when they come (json_trace_parser, flow_tracker in its sources).
    """
    events = [event for event in trace["traceEvents"] if event["ph"] != "M"]
    assert events == sorted(events, key=lambda event: event["ts"])
    owners: dict[int, int] = {}
    stacks: defaultdict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    slices: Slices = defaultdict(list)
    begun: dict[int, Any] = {}
    flows = []
    for event in events:
        assert event["ts"] >= 0
        now = round(event["ts"] * 1000)
        if event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
            continue
        if event["ph"] == "i":
            assert event["s"] == "p"
            continue
        thread = event["tid"]
        assert owners.setdefault(thread, event["pid"]) == event["pid"], "a thread of two processes"
        if event["ph"] == "X":
            end = now + round(event["dur"] * 1000)
            while stacks[thread] and stacks[thread][-1][0] <= now:
                stacks[thread].pop()
            assert not stacks[thread], "a slice within another"
            stacks[thread].append((end, event))
            slices[thread].append(event)
        elif event["ph"] == "s":
            assert event["id"] not in begun
            begun[event["id"]] = stacks[thread][-1][1]
        else:
            assert (event["ph"], event["bp"]) == ("f", "e")
            flows.append((begun[event["id"]], stacks[thread][-1][1]))
    return slices, flows


def lanes(trace: dict[str, Any]) -> dict[int, str]:
    """The names of the threads."""
    names = [event for event in trace["traceEvents"] if event["ph"] == "M" and event["name"] == "thread_name"]
    assert len({event["tid"] for event in names}) == len(names)
    return {event["tid"]: event["args"]["name"] for event in names}


@given(stories())
def test_any_trace_can_be_imported(told: Story) -> None:
    trace = json.loads(json.dumps(chrome.trace(told), allow_nan=False))
    slices, flows = imported(trace)
    started = [job for job in (*told.jobs, *told.tries) if job.started is not None]
    assert len(flows) == len(started)
    assert sum(map(len, slices.values())) == len(told.jobs) + len(told.calls) + len(told.loads)
    for submission, call in flows:
        job = submission["args"]["job"]
        assert job == call["args"]["job"] or job in call["args"]["job"]
    assert set(slices) <= set(lanes(trace))


@given(stories())
def test_the_file_holds_the_same(told: Story) -> None:
    file = io.StringIO()
    chrome.write(told, file)
    assert json.loads(file.getvalue()) == json.loads(json.dumps(chrome.trace(told)))


def test_a_lane_for_each_slot_and_an_arrow_from_submission_to_run() -> None:
    trace = chrome.trace(story([ran(7, 1, 0.5, 1, 3), never_ran(8, 1, 2)], until=4, name="mine"))
    slices, flows = imported(trace)
    by_lane = {name: slices.get(thread, []) for thread, name in lanes(trace).items()}
    assert set(by_lane) == {"submissions", "model loads", "slot 0", "slot 1"}
    [call] = by_lane["slot 1"]
    assert (call["name"], call["ts"], call["dur"]) == ("detect", 1e6, 2e6)
    assert call["args"] == {"job": 7, "waited_ms": 500.0, "state": "succeeded"}
    assert [event["name"] for event in by_lane["submissions"]] == ["submit detect"] * 2
    assert flows == [(by_lane["submissions"][0], call)]
    processes = [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"]
    assert processes == ["mine", "simulated:0 simulated:0", "simulated:1 simulated:1"]


def test_a_batch_is_one_slice_with_an_arrow_for_each_job() -> None:
    slices, flows = imported(chrome.trace(story([ran(1, 0, 0, 2, 3), ran(2, 0, 1, 2, 3)], until=4)))
    [call] = slices[1000]
    assert (call["name"], call["args"]["job"], call["args"]["waited_ms"]) == ("detect x 2", [1, 2], 2000.0)
    assert [submission["args"]["job"] for submission, _ in flows] == [1, 2]


def test_failures_and_unfinished_calls_say_so() -> None:
    failed = ran(1, 0, 0, 0, 1, state="failed", error="ValueError: no")
    slices, _ = imported(chrome.trace(story([failed, ran(2, 0, 0, 1, None)], until=4)))
    first, second = slices[1000]
    assert (first["args"]["state"], first["args"]["error"]) == ("failed", "ValueError: no")
    assert (second["args"]["state"], second["dur"]) == ("running", 3e6)


def test_counters_of_queue_and_memory() -> None:
    memory = (MemorySample(1, 100, {}), MemorySample(2, None, {"simulated:1": 50}))
    trace = chrome.trace(story([never_ran(1, 1, 2)], until=4, memory=memory))
    counters = [(e["name"], e["pid"], e["ts"], e["args"]) for e in trace["traceEvents"] if e["ph"] == "C"]
    assert counters == [
        ("queue", 1, 0, {"jobs": 0}),
        ("queue", 1, 1e6, {"jobs": 1}),
        ("memory", 1, 1e6, {"process": 100}),
        ("queue", 1, 2e6, {"jobs": 0}),
        ("memory", 11, 2e6, {"used": 50}),
    ]


def test_devices_that_go_and_come_are_marked() -> None:
    device = story([], until=9).slots[1]
    incidents = (Incident(2, device, "it fell off the bus"), Incident(3, device, None))
    trace = chrome.trace(story([], until=4, incidents=incidents))
    marks = [(e["name"], e["pid"], e["ts"]) for e in trace["traceEvents"] if e["ph"] == "i"]
    assert marks == [("out of service: it fell off the bus", 11, 2e6), ("in service again", 11, 3e6)]
    imported(trace)


def test_loads_at_once_on_one_device_stand_one_behind_the_other() -> None:
    told = story([], until=9)
    loads = (Load("a", told.slots[0], 1, 4, None), Load("b", told.slots[0], 2, 5, "OSError: gone"))
    slices, _ = imported(chrome.trace(story([], until=9, loads=loads)))
    [first, second] = next(iter(slices.values()))
    assert (first["name"], first["ts"], first["dur"]) == ("load a", 1e6, 3e6)
    assert (second["name"], second["ts"], second["dur"]) == ("load b", 4e6, 1e6)
    assert second["args"] == {"seconds": 3, "error": "OSError: gone"}
