"""`director demo`: its figures from traces worked out by hand, its words, and the real thing once."""

from __future__ import annotations

import builtins
import io
import itertools
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from director._format import quantile
from director.cli import main
from director.cli._demo.contenders import CONTENDERS, Recording, measure
from director.cli._demo.trace import Call, Run, at_best, figures, lost, make_trace
from director.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

# ---- the stream


def test_the_same_seed_gives_the_same_stream() -> None:
    again = make_trace(50, 4, mean=0.01, load=0.8, seed=3)
    assert make_trace(50, 4, mean=0.01, load=0.8, seed=3) == again
    assert make_trace(50, 4, mean=0.01, load=0.8, seed=4) != again


def test_the_stream_has_the_mean_and_the_load_it_was_asked_for() -> None:
    trace = make_trace(1000, 4, mean=0.01, load=0.8, seed=0)
    work = sum(call.seconds for call in trace)
    assert work / 1000 == pytest.approx(0.01)
    assert work / (4 * trace[-1].arrival) == pytest.approx(0.8)
    assert [call.number for call in trace] == list(range(1000))
    assert all(call.seconds > 0 for call in trace)
    assert [call.arrival for call in trace] == sorted(call.arrival for call in trace)


def test_its_durations_are_heavy_tailed() -> None:
    durations = sorted(call.seconds for call in make_trace(1000, 4, mean=0.01, load=0.8, seed=0))
    assert durations[500] < 0.5 * 0.01
    assert durations[990] > 4 * 0.01


# ---- the figures


def test_nothing_lost() -> None:
    """Two devices; the third job waits for the shorter of the first two."""
    trace = [Call(0, 0.0, 5.0), Call(1, 1.0, 2.0), Call(2, 2.0, 4.0)]
    assert at_best(trace, 2) == [Run(0, 0.0, 0.0, 5.0), Run(1, 1.0, 1.0, 3.0), Run(1, 2.0, 3.0, 7.0)]


def test_what_is_computed_as_best_loses_nothing() -> None:
    trace = make_trace(300, 4, mean=0.01, load=0.9, seed=1)
    assert lost(at_best(trace, 4), 4) == pytest.approx(0.0, abs=1e-12)


def test_figures() -> None:
    """Round robin puts the third job on device 0, behind the first, while device 1 is idle from 3 on."""
    runs = [Run(0, 0.0, 0.0, 5.0), Run(1, 1.0, 1.0, 3.0), Run(0, 2.0, 5.0, 9.0)]
    found = figures(runs, 2)
    assert (found.wait_p50, found.wait_p99, found.makespan) == (0.0, 3.0, 9.0)
    assert found.idle == pytest.approx((1 + 6) / 18)
    assert found.lost == pytest.approx(2 / 18)  # from 3 to 5: device 1 idle, and a job waiting


def test_lost_counts_no_more_devices_than_jobs_wait() -> None:
    assert lost([Run(0, 0.0, 2.0, 3.0)], 4) == 2.0
    assert lost([Run(0, 0.0, 2.0, 3.0), Run(1, 0.0, 2.0, 3.0)], 4) == 4.0


@pytest.mark.parametrize(("share", "value"), [(0.5, 2.0), (0.99, 4.0), (0.25, 1.0), (0.26, 2.0), (0.0, 1.0)])
def test_quantile(share: float, value: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == value


# ---- the contenders


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("name", CONTENDERS)
async def test_every_job_runs_once_and_never_two_on_a_device(name: str, busy: bool) -> None:
    devices = simulated_devices(3)
    trace = make_trace(60, 3, mean=0.001, load=2.0, seed=1)
    recording = Recording(3)
    await measure(recording, CONTENDERS[name], devices, trace, busy=busy)
    assert sorted(run.arrival for run in recording.runs) == [call.arrival for call in trace]
    assert recording.running == {}
    for device in range(3):
        mine = sorted((run.started, run.ended) for run in recording.runs if run.device == device)
        assert mine
        assert all(ended <= started for (_, ended), (started, _) in itertools.pairwise(mine))
    assert all(run.started >= run.arrival for run in recording.runs)


async def test_by_index_is_round_robin() -> None:
    trace = make_trace(12, 3, mean=0.001, load=2.0, seed=1)
    recording = Recording(3)
    await measure(recording, CONTENDERS["GPU index per item"], simulated_devices(3), trace, busy=False)
    devices = {run.arrival: run.device for run in recording.runs}
    assert [devices[call.arrival] for call in trace] == [0, 1, 2] * 4


@pytest.mark.parametrize("devices", ["foo", "cpu:0", "simulated:x"])
def test_devices_that_are_none_are_refused_before_anything_runs(
    devices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--devices", devices]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("director demo: ")
    assert shown.err.count("\n") == 1


# ---- what is shown

SHORT = ("--jobs", "40", "--simulated", "2")


def test_the_lanes_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--only", "lanes", *SHORT]) == 0
    shown = capsys.readouterr()
    assert "2 simulated devices,\n   which only pass time" in shown.out
    assert "loop     scheduled by" in shown.out
    assert all(shown.out.count(f" {name} ") == 2 for name in CONTENDERS)
    assert "at best (computed)" in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert "measuring: director, event loop blocked 20 of every 40 ms" in shown.err


@pytest.mark.parametrize(
    ("load", "warning"),
    [
        (0.4, ""),
        (3.25, "Other programs are busy here: load average 3.2 on 2 cores. Times are longer\nthan on an idle machine, "
               "and differ from run to run.\n\n"),
    ],
)  # fmt: skip
def test_a_busy_machine_is_named_first(
    load: float, warning: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert main(["demo", "--only", "lanes", *SHORT]) == 0
    before, _, _ = capsys.readouterr().out.partition("2  What scheduling costs")
    assert before == warning
    assert main(["demo", "--only", "lanes", "--json", *SHORT]) == 0
    assert json.loads(capsys.readouterr().out)["load_average"] == load


@pytest.mark.slow
def test_the_lanes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--only", "lanes", "--json", *SHORT]) == 0
    lanes = json.loads(capsys.readouterr().out)["lanes"]
    assert (lanes["jobs"], lanes["simulated_devices"], lanes["seed"]) == (40, 2, 1)
    assert [run["loop"] for run in lanes["runs"]] == [None, *["idle"] * 3, *["blocked 20 of every 40 ms"] * 3]
    for run in lanes["runs"]:
        assert 0 <= run["wait_p50"] <= run["wait_p99"] < run["makespan"]
        assert -1e-9 <= run["lost"] <= run["idle"] < 1


def test_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    assert main(["demo", "--only", "digits", "--devices", "cpu:2"]) == 0
    shown = capsys.readouterr().out
    assert "digits held out from training" in shown
    assert "devices   cpu:2 (as asked); the network runs in numpy" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_the_digits_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    assert main(["demo", "--only", "digits", "--devices", "cpu:2", "--json"]) == 0
    digits = json.loads(capsys.readouterr().out)["digits"]
    assert (digits["items"], digits["trained_on"]) == (1797, 899)
    assert digits["accuracy"] == digits["right_held_out"] / 898
    assert digits["accuracy"] > 0.94  # measured 0.967; what depends on the BLAS moves a few digits
    assert sum(device["items"] for device in digits["devices"]) == 1797


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As if it weren't installed."""
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *rest)

    for name in [name for name in sys.modules if name.startswith(("director.cli._demo.", "director.cli._run.bars"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)


@pytest.mark.slow
def test_without_scikit_learn_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide(monkeypatch, "sklearn")
    assert main(["demo", *SHORT]) == 0
    shown = capsys.readouterr().out
    assert "left out: sklearn is not installed: pip install 'gpu-director[demo]'" in shown
    assert "at best (computed)" in shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_rich_a_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["demo", "--only", "lanes", *SHORT]) == 0
    assert "(for a live view: pip install 'gpu-director[cli]')" in sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "measuring: director" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_lanes_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices, ten seconds: one works, while a job waits for it; the other is idle."""
    pytest.importorskip("rich")
    from director.cli._demo.lanes import Lanes

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", Terminal())
    trace = [Call(0, 0.0, 5.0), Call(1, 1.0, 2.0), Call(2, 7.0, 1.0)]
    recording = Recording(2, [Run(0, 0.0, 0.0, 5.0), Run(0, 1.0, 5.0, 7.0), Run(0, 7.0, 7.0, 8.0)], start=0, end=8)
    with Lanes(trace, 2, "idle") as lanes:
        lanes.play("somebody", recording)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    final = shown[shown.rindex("somebody, 8.00 s") :].splitlines()
    assert final[1].count("█") == pytest.approx(61 * 8 / (7 * 1.5), abs=1)
    assert "\x1b[32;41m" in final[2]  # red: idle while a job waits
    assert final[2].count("█") == 0


@pytest.mark.parametrize(
    "arguments", [("--jobs", "9"), ("--simulated", "0"), ("--load", "0"), ("--load", "nan"), ("--only", "both")]
)
def test_usage(arguments: tuple[str, ...]) -> None:
    assert main(["demo", *arguments]) == 2
