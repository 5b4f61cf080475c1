"""Two who use the same GPU and don't share it are told so."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from director import Device, Director
from director._ipc import sharing
from director._ipc.sharing.lock_file import LockFile
from director._ipc.sharing.presence import Presence

if TYPE_CHECKING:
    from pathlib import Path

GPUS = [Device(index, f"GPU-{index}", "made up", "cuda") for index in range(2)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_second_one_is_told_who_the_first_is(caplog: pytest.LogCaptureFixture) -> None:
    async with Director(GPUS[:1]):
        assert warnings(caplog) == []
        async with Director(GPUS):
            (said,) = warnings(caplog)
    assert said == (
        "cuda:0 (GPU-0) is used by another Director of this process too, so each of them runs jobs and loads models on "
        "it as if it were alone. Use one process for all GPUs, or give every one of them the same "
        "Director(shared='a-name')."
    )


async def test_a_third_is_told_though_the_first_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Director(GPUS[:1]), Director(GPUS[:1])
    await first.start()
    await second.start()
    await first.close()
    async with Director(GPUS[:1]):
        assert len(warnings(caplog)) == 2
    await second.close()


def test_two_who_come_at_the_same_moment_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the processes of a server that starts: a lock that becomes a shared one is given up for a moment."""
    share, others = LockFile.share, []

    def share_late(file: LockFile) -> None:
        monkeypatch.setattr(LockFile, "share", share)
        file.unlock()
        others.append(Presence(GPUS[:1], None))
        file.share()

    monkeypatch.setattr(LockFile, "share", share_late)
    first = Presence(GPUS[:1], None)
    for each in (first, *others):
        each.close()
    assert len(warnings(caplog)) == 1


async def test_servers_with_one_name_are_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_server", None)
    sharing.name_server("x")
    async with Director(GPUS):
        async with Director(GPUS[:1]):
            assert warnings(caplog) == []
        sharing.name_server("y")
        async with Director(GPUS[:1]):
            assert len(warnings(caplog)) == 1


async def test_when_the_others_have_gone_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        async with Director(GPUS):
            pass
    with pytest.raises(Exception, match="names 0 of these"):
        await Director(GPUS, slots={"nothing": 1}).start()
    async with Director(GPUS):
        assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("one", "two", "are_told"), [("x", "x", False), ("x", "y", True), ("x", None, True), (None, "x", True)]
)
async def test_only_those_who_share_are_no_strangers(
    caplog: pytest.LogCaptureFixture, one: str | None, two: str | None, are_told: bool
) -> None:
    async with Director(GPUS, shared=one), Director(GPUS, shared=two):
        assert bool(warnings(caplog)) is are_told


async def test_stand_ins_are_nobody_elses(caplog: pytest.LogCaptureFixture) -> None:
    async with Director("simulated:2"), Director("simulated:2"), Director("cpu"):
        assert warnings(caplog) == []


CHILD = """
import sys
from director import Device
from director._ipc.sharing.presence import Presence
there = Presence([Device(0, "GPU-0", "made up", "cuda")], None)
print(flush=True)
sys.stdin.read()
"""


def test_another_process_is_named_and_forgotten_when_it_dies(caplog: pytest.LogCaptureFixture) -> None:
    program = [sys.executable, "-c", CHILD]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        Presence(GPUS, None).close()
        (said,) = warnings(caplog)
        assert f"is used by process {child.pid} (-c) too" in said
        child.kill()
    caplog.clear()
    Presence(GPUS, None).close()
    assert warnings(caplog) == []


def test_what_the_first_wrote_may_be_unreadable(caplog: pytest.LogCaptureFixture, runtime: Path) -> None:
    there = Presence(GPUS[:1], None)
    (runtime / "devices" / "GPU-0").write_text("{")
    Presence(GPUS[:1], None).close()
    there.close()
    assert "is used by another process too" in warnings(caplog)[0]


def test_where_nothing_can_be_written_nothing_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DIRECTOR_RUNTIME_DIR", str(tmp_path / "file" / "below"))
    Presence(GPUS, None).close()
    assert warnings(caplog) == []
