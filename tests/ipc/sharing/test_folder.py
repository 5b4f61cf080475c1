"""Where lock files lie: no stranger can hold one, and several users agree or are refused at the start."""

# ruff: noqa: ASYNC240 -- what waits here is the test alone

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import Director
from director._ipc.sharing.lock_file import LockFile, folder

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.programs

ALICE, BOB, MALLORY, GROUP = 4201, 4202, 4203, 4300
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")

PROGRAM = """
import asyncio, os, sys, tempfile
from director import Director
async def main(told):
    async with Director("simulated:1", shared="x") as director:
        told(await director.run(lambda device: device.label))
place, user, *groups = sys.argv[1], *map(int, sys.argv[2:])
with tempfile.TemporaryDirectory() as os.environ["DIRECTOR_RUNTIME_DIR"]:
    asyncio.run(main(str))  # imports everything, which another user may not be allowed to read
os.environ["DIRECTOR_RUNTIME_DIR"] = place
os.umask(0o022)
os.setgroups(groups)
os.setgid(user)
os.setuid(user)
def told(label):
    print(label, flush=True)
    sys.stdin.readline()
try:
    asyncio.run(main(told))
except RuntimeError as error:
    print("RuntimeError:", error)
"""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that other users can reach; DIRECTOR_RUNTIME_DIR names one in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as found:
        Path(found).chmod(0o755)
        (Path(found) / "runtime").mkdir()
        monkeypatch.setenv("DIRECTOR_RUNTIME_DIR", f"{found}/runtime")
        yield Path(found) / "runtime"


def start(user: int, *groups: int) -> subprocess.Popen[str]:
    """An app of this user."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, os.environ["DIRECTOR_RUNTIME_DIR"], *map(str, (user, *groups))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ran(app: subprocess.Popen[str]) -> str:
    """What it said until it ended."""
    out, err = app.communicate("\n", timeout=60)
    return out + err


def can_open(user: int, path: Path) -> bool:
    """Whether this user can open a file at all, for who can may lock it."""
    command = ["/bin/cat", str(path)]
    return subprocess.run(command, user=user, group=user, extra_groups=[], capture_output=True).returncode == 0


def lock_files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


# ---- of one user


def test_among_the_temporary_files_it_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DIRECTOR_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    found = folder("shared", "x").path
    assert found == tmp_path / f"director-{os.getuid()}" / "shared" / "x"
    assert mode_of(found.parent.parent) == mode_of(found) == 0o700


def test_a_link_or_a_file_of_that_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DIRECTOR_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"director-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RuntimeError, match="set DIRECTOR_RUNTIME_DIR"):
        folder("shared", "x")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_can_open_a_lock_file(umask: int, runtime: Path) -> None:
    before = os.umask(umask)
    try:
        file = LockFile(folder("shared", "x"), "a")
        assert file.try_lock()
    finally:
        os.umask(before)
    assert mode_of(runtime) == 0o700
    assert [mode_of(path) for path in lock_files(runtime)] == [0o600]
    file.close()


def test_a_file_that_an_earlier_version_left_open_is_closed_to_others(runtime: Path) -> None:
    path = folder("shared", "x").path / "a"
    path.touch(0o644)
    LockFile(folder("shared", "x"), "a").try_lock()
    assert mode_of(path) == 0o600


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_not_locked(kind: str, tmp_path: Path) -> None:
    found = folder("shared", "x")
    if kind == "link":
        (tmp_path / "victim").touch()
        (found.path / "a").symlink_to(tmp_path / "victim")
    else:
        os.mkfifo(found.path / "a")
    with pytest.raises(OSError, match=r"symbolic links|belongs to another user"):
        LockFile(found, "a").try_lock()


def test_the_whole_folder_may_be_tidied_away(runtime: Path) -> None:
    found = folder("shared", "x")
    (found.path).rmdir()
    (found.path.parent).rmdir()
    (runtime).rmdir()
    assert LockFile(found, "a").try_lock()
    assert mode_of(runtime) == mode_of(found.path) == 0o700


async def test_a_folder_that_all_may_write_to_is_refused_at_the_start(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o777)
    with pytest.raises(RuntimeError, match=r"all users may write to .*: set DIRECTOR_RUNTIME_DIR to a folder of"):
        await Director("simulated:1", shared="x").start()


async def test_what_can_not_be_used_is_refused_at_the_start(runtime: Path) -> None:
    runtime.write_text("a file")
    with pytest.raises(RuntimeError, match="or is no folder"):
        await Director("simulated:1", shared="x").start()
    runtime.unlink()
    found = folder("shared", "x")
    (found.path / "SIM-0.0.slot").symlink_to("elsewhere")
    with pytest.raises(RuntimeError, match="can't be used for locks"):
        await Director("simulated:1", shared="x").start()


# ---- of several users


def owned(place: Path, user: int, group: int, mode: int) -> None:
    os.chown(place, user, group)
    place.chmod(mode)


@as_root
def test_a_folder_like_that_of_temporary_files_has_one_for_each_user(place: Path) -> None:
    place.chmod(0o1777)
    apps = [start(user) for user in (ALICE, BOB)]
    assert [ran(app) for app in apps] == ["simulated:0\n"] * 2
    assert {path.name for path in place.iterdir()} == {f"director-{ALICE}", f"director-{BOB}"}
    assert not any(can_open(MALLORY, path) for path in lock_files(place))
    assert not any(can_open(BOB, path) for path in lock_files(place / f"director-{ALICE}"))


@as_root
def test_users_of_a_group_take_turns(place: Path) -> None:
    owned(place, 0, GROUP, 0o2770)
    alice = start(ALICE, GROUP)
    assert alice.stdout is not None
    assert alice.stdout.readline() == "simulated:0\n"
    bob = start(BOB, GROUP)
    assert ran(bob) == "simulated:0\n"
    assert ran(alice) == ""
    assert {mode_of(path) for path in lock_files(place)} == {0o660}
    assert {path.stat().st_gid for path in place.rglob("*")} == {GROUP}
    assert not any(can_open(MALLORY, path) for path in lock_files(place))


@as_root
@pytest.mark.parametrize(
    ("owner", "group", "mode", "said"),
    [
        (ALICE, ALICE, 0o755, "belongs to another user"),
        (0, 0, 0o755, "belongs to another user"),
        (BOB, GROUP, 0o770, "a group that this user isn't in"),
        (0, 0, 0o777, "all users may write"),
    ],
)
def test_what_would_fail_jobs_is_refused(owner: int, group: int, mode: int, said: str, place: Path) -> None:
    owned(place, owner, group, mode)
    told = ran(start(BOB))
    assert "RuntimeError: " in told
    assert said in told
    assert "set DIRECTOR_RUNTIME_DIR to a folder of your own" in told
    assert "simulated:0" not in told


@as_root
def test_a_file_that_another_user_made_is_not_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mallory has planted what this user's processes would lock, and holds it."""
    owned(place, 0, 0, 0o1777)
    planted = place / f"director-{ALICE}"
    planted.mkdir()
    owned(planted, MALLORY, MALLORY, 0o777)
    assert "belongs to another user" in ran(start(ALICE))


def test_a_process_that_holds_a_file_of_presence_holds_up_no_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from director._ipc.sharing.presence import Presence

    monkeypatch.setattr("director._ipc.sharing.presence._PATIENCE", 0.01)
    gpu: Any = type("Gpu", (), {"uuid": "GPU-1", "label": "cuda:0"})()
    file = LockFile(folder("devices"), "GPU-1")
    assert file.try_lock()
    Presence([gpu], None).close()
    assert "cuda:0 (GPU-1) is used by another process too" in caplog.text
    file.close()


def test_what_another_process_says_of_itself_is_shown_plainly(caplog: pytest.LogCaptureFixture) -> None:
    from director._ipc.sharing.presence import Presence

    gpu: Any = type("Gpu", (), {"uuid": "GPU-1", "label": "cuda:0"})()
    file = LockFile(folder("devices"), "GPU-1")
    assert file.try_lock()
    os.pwrite(file.fd, b'{"pid": 1, "program": "a\\u001b[31m\\u202e", "shared": null}', 0)
    file.unlock()
    assert file.share()
    Presence([gpu], None).close()
    assert "process 1 (a\\x1b[31m\\u202e)" in caplog.text
    file.close()
