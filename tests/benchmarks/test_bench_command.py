"""`director bench`, apart from what it measures."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

import pytest

from benchmarks import theory
from director.cli import bench
from director.cli._bench import catalog, suite
from director.cli._bench.contenders import DIRECTOR, POOL
from director.cli._bench.sheet import Sheet
from director.cli._status import UsageError

if TYPE_CHECKING:
    from director.cli._bench.sheet import Effort

pytestmark = pytest.mark.programs


def measure(effort: Effort) -> Sheet:
    """An experiment without an experiment."""
    sheet = Sheet()
    sheet.add(POOL.name, "gather", "µs", 10.0)
    sheet.add(DIRECTOR.name, "gather", "µs", effort.pick(3.0, 30.0))
    return sheet


def die(_: Effort) -> Sheet:
    os._exit(7)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One made-up experiment instead of the real ones."""
    only = catalog.Experiment("burst", "how much?", measure, (catalog.ONE_CORE, catalog.ALL_CORES), POOL.name)
    monkeypatch.setattr(catalog, "EXPERIMENTS", (only,))


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    bench.add_parser(parser.add_subparsers())
    args = parser.parse_args(["bench", *words])
    status: int = args.run(args)
    return status


def test_lists_the_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    assert capsys.readouterr().out == "burst  how much?\n"


def test_an_unknown_experiment_is_a_usage_error_that_names_the_known() -> None:
    with pytest.raises(UsageError, match="no experiment is called 'speed'; there are burst"):
        run("--only", "speed")


def test_an_experiment_that_dies_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog, "EXPERIMENTS", (catalog.Experiment("burst", "", die, (catalog.ALL_CORES,), ""),))
    assert run() == 1
    assert "director bench: an experiment ended with exit status 7 instead of an answer" in capsys.readouterr().err


def test_a_full_run_measures_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "--goals") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert [found["place"] for found in result["results"]] == ["one core", "all cores"]
    assert result["effort"] == "full"
    assert result["goals"][0]["reached"] is True
    assert "burst, one core" in printed.err


def test_a_quick_run_measures_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--quick", "--only", "burst") == 0
    printed = capsys.readouterr().out
    assert "3.00x" in printed
    assert "all cores" not in printed


def test_the_tables_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--quick", "--markdown", "--goals") == 0
    first, legend, *blocks = capsys.readouterr().out.rstrip().split("\n\n")
    assert first.startswith("date ")
    assert legend.startswith("Median (min - max)")
    blocks = [block for block in blocks if not block.startswith("Left out: ")]
    assert blocks[:3] == [
        "### burst, one core",
        f"How much? x = to {POOL.name}.",
        "|  | gather, µs |\n| --- | --- |\n"
        f"| {POOL.name} | 10.0 (10.0 - 10.0) 1.00x |\n| {DIRECTOR.name} | 30.0 (30.0 - 30.0) 3.00x |",
    ]
    assert "### Goals" in blocks


def test_the_guard_fails_where_a_goal_is_missed_by_far(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--guard") == 0
    assert run("--guard", "--quick") == 1
    assert "director bench: not reached, by far: burst, gather" in capsys.readouterr().err


def test_markdown_and_json_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("--json", "--markdown")
    assert "not allowed with" in capsys.readouterr().err


def test_goals_are_printed_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    for options, told in (([], False), (["--goals"], True)):
        assert run("--quick", *options) == 0
        assert ("not reached" in capsys.readouterr().out) == told


def test_the_experiments_on_the_design_have_the_same_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert theory.main(["--list", "--only", "slo"]) == 0
    assert capsys.readouterr().out.startswith("slo  items a second")
    with pytest.raises(SystemExit, match="2"):
        theory.main(["--only", "burst"])
    assert "there are waiting, batching, hooks, slo" in capsys.readouterr().err


def test_where_nothing_can_be_pinned_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "can_pin", lambda: False)
    assert run("--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [found["place"] for found in result["results"]] == ["all cores"]
    assert "everything on one core: this system cannot bind a process to a core" in result["left_out"]
