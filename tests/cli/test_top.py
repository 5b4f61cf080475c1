"""`director top`: a real app in a process of its own, looked at from another one; the screen without a terminal."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import Director
from director.cli import main
from director.cli._console import shown_document
from director.cli._status import UsageError
from director.cli._top.find import find_app
from director.cli._top.known import DashboardState, Track
from director.cli._top.report import describe, report
from director.dashboard import Dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.programs

APP = '''
"""A Director with one job that has failed and one that waits at a gate; its path is printed once that one runs."""
import asyncio, sys, threading
from director import Director
from director.dashboard import Dashboard

def fail(device):
    raise ValueError("no good")

async def main():
    gate, began = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(device):
        loop.call_soon_threadsafe(began.set)
        gate.wait()

    director = Director("simulated:2", name="vision")
    async with Dashboard(director).serve() as path, director:
        await asyncio.gather(director.submit(fail, name="decode"), return_exceptions=True)
        job = director.submit(wait, name="detect")
        await began.wait()
        print(path, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        gate.set()
        await job

asyncio.run(main())
'''


class App:
    """A running app; `end` lets it leave."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", APP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )
        assert self._process.stdout is not None
        self.path = Path(self._process.stdout.readline().strip())
        self.pid = self._process.pid

    def end(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the address of a Unix socket has 108 bytes at most."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="director-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No apps but those of the test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("director.dashboard._socket_paths._folders", lambda: [tmp_path / "director"])
    return tmp_path


@pytest.fixture
def start_app(tmp_path: Path) -> Iterator[Callable[[], App]]:
    apps: list[App] = []

    def start() -> App:
        apps.append(App(tmp_path))
        return apps[-1]

    yield start
    for app in apps:
        app.end()


@pytest.fixture
def app(start_app: Callable[[], App]) -> App:
    return start_app()


# ---- which app


def test_the_only_app_is_meant(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once"]) == 0
    shown = capsys.readouterr().out
    assert re.match(rf"vision: open for \d+ s, process {app.pid} on ", shown)
    assert "0 waiting, 1 running, 1 of 2 slots busy" in shown
    assert re.search(r"^simulated:0  healthy +- +\S+ % +\d/1 ", shown, re.M)
    assert re.search(r"^  2  detect  simulated:1 +for ", shown, re.M)
    assert re.search(r"^  ValueError  decode  no good +1 time ", shown, re.M)


@pytest.mark.parametrize("how", ["pid", "path", "name"])
def test_an_app_by_its_number_its_path_or_its_name(how: str, app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", str({"pid": app.pid, "path": app.path, "name": "vision"}[how]), "--once", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["pid"] == app.pid


def test_without_an_app_it_says_how_to_open_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top"]) == 1
    assert "async with dashboard.serve(), director:" in capsys.readouterr().err


@pytest.mark.parametrize(("wanted", "said"), [("1", "process 1 has no socket"), ("nothing.sock", "no app listens at")])
def test_an_app_that_is_not_there(wanted: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", wanted]) == 1
    assert said in capsys.readouterr().err


def test_several_apps_are_listed(
    start_app: Callable[[], App], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("director.cli._top.find._PATIENCE", 20.0)
    apps = [start_app(), start_app()]
    assert main(["top"]) == 2
    shown = capsys.readouterr().err
    for app in apps:
        assert re.search(rf"^{app.pid} +vision +open +2 +0 +1 +{app.path}$", shown, re.M)
    assert shown.endswith("several apps are there: name one by its Director's name, its process number or path\n")
    assert main(["top", "vision"]) == 2
    assert "several apps are meant by vision: name one by its process number or path" in capsys.readouterr().err


@contextlib.asynccontextmanager
async def served(*names: str | None) -> AsyncIterator[list[Path]]:
    """Sockets of Directors with these names, all in this process."""
    async with contextlib.AsyncExitStack() as stack:
        boards = [Dashboard(Director("simulated:1", name=name)) for name in names]
        yield [await stack.enter_async_context(board.serve()) for board in boards]


async def test_a_director_by_its_name_among_others_of_its_process() -> None:
    async with served("vision", "audio", None, "audio/2", "\x1bname") as (vision, audio, _, slash, odd):
        assert await find_app("vision") == vision
        assert await find_app("audio") == audio
        assert await find_app("\\x1bname") == odd, "as the list shows it"
        assert await find_app(str(slash)) == slash
        with pytest.raises(UsageError, match="several apps are meant by"):
            await find_app(str(os.getpid()))
        with pytest.raises(
            ConnectionError, match=r"no app has a Director named visoin; the names are: \\x1bname, audio"
        ):
            await find_app("visoin")


async def test_a_number_is_a_process_before_it_is_a_name() -> None:
    pid = str(os.getpid())
    async with served("7", pid) as (seven, _):
        assert await find_app("7") == seven
        with pytest.raises(UsageError, match=f"several apps are meant by {pid}"):
            await find_app(pid)


async def test_a_name_where_none_has_one() -> None:
    async with served(None):
        with pytest.raises(ConnectionError, match="none of those that are there has a name"):
            await find_app("vision")


async def test_an_app_that_does_not_answer_is_listed_all_the_same(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("director.cli._top.find._PATIENCE", 0.05)
    (runtime / "director").mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        for number in (1, 2):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(runtime / "director" / f"{number}.sock"))
            listener.listen()
        with pytest.raises(UsageError, match="several apps") as raised:
            await find_app(None)
    assert raised.value.detail.count("does not answer") == 2


# ---- as JSON, without an end


def test_json_goes_on_until_the_app_has_gone(app: App) -> None:
    command = [sys.executable, "-m", "director", "top", str(app.path), "--json", "--every", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as top:
        assert top.stdout is not None
        assert top.stderr is not None
        seen = [json.loads(top.stdout.readline()) for _ in range(3)]
        app.end()
        rest = top.stdout.read().splitlines()
        assert top.wait(20) == 1
        assert "no app listens at" in top.stderr.read() or rest
    assert [each["counts"]["failed"] for each in seen] == [1, 1, 1]
    assert seen[0]["at"] < seen[1]["at"] < seen[2]["at"]


@pytest.mark.parametrize(
    "arguments", [["--every", "0"], ["--every", "x"], ["--port", "70000"], ["--json", "--web"], ["--port", "-1"]]
)
def test_usage(arguments: list[str]) -> None:
    assert main(["top", *arguments]) == 2


# ---- on a terminal


class Terminal:
    """`director top` on a terminal of its own."""

    def __init__(self, path: Path, columns: int = 100, lines: int = 30) -> None:
        self._screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(lines)}
        env.pop("NO_COLOR", None)
        command = [sys.executable, "-m", "director", "top", str(path), "--every", "0.1"]
        self.process = subprocess.Popen(
            command, env=env, pass_fds=[theirs], start_new_session=True, preexec_fn=lambda: os.login_tty(theirs)
        )
        os.close(theirs)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._shown = ""

    def wait_for(self, words: str) -> None:
        """Read on until the words are on the screen."""
        while words not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._shown):
            self._shown += self._decoder.decode(os.read(self._screen, 65536))
        self._shown = ""

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def waits_for_lines(self) -> bool:
        return bool(termios.tcgetattr(self._screen)[3] & termios.ICANON)

    def end(self) -> int:
        """Read what is left, so that it isn't held up, and wait for its end."""
        try:
            while os.read(self._screen, 65536):
                pass
        except OSError:
            pass  # the last one who had the terminal has gone
        os.close(self._screen)
        return self.process.wait(20)


def test_looking_around_on_a_terminal(app: App) -> None:
    pytest.importorskip("rich")
    terminal = Terminal(app.path)
    terminal.wait_for("vision: open for")
    terminal.wait_for("simulated:1")
    terminal.wait_for(">  2  detect")
    terminal.type("\r")
    terminal.wait_for("job 2")
    terminal.wait_for("running")
    terminal.type("\x1b")
    terminal.wait_for("tab other list")
    terminal.type("\t\t")
    terminal.wait_for("ValueError")
    terminal.type("\r")
    terminal.wait_for("Traceback (most recent call last)")
    terminal.type("q")
    assert terminal.end() == 0


def test_pause_on_a_terminal(app: App) -> None:
    pytest.importorskip("rich")
    terminal = Terminal(app.path)
    terminal.wait_for("   live")
    terminal.type(" ")
    terminal.wait_for("   paused")
    terminal.type(" ")
    terminal.wait_for("   live")
    terminal.type("q")
    assert terminal.end() == 0


def test_the_terminal_is_told_when_the_app_goes(app: App) -> None:
    pytest.importorskip("rich")
    terminal = Terminal(app.path)
    terminal.wait_for("simulated:1")
    app.end()
    terminal.wait_for("director top: ")
    assert terminal.end() == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_terminal_as_it_was(app: App, number: signal.Signals, status: int) -> None:
    pytest.importorskip("rich")
    terminal = Terminal(app.path)
    terminal.wait_for("simulated:1")
    assert not terminal.waits_for_lines()
    if number == signal.SIGINT:
        terminal.type("\x03")
    else:
        terminal.process.send_signal(number)
    terminal.process.wait(20)
    assert terminal.waits_for_lines()
    assert terminal.end() == status


# ---- the screen


async def known_of(director: Director, dashboard: Dashboard) -> DashboardState:
    known = DashboardState()
    frames = dashboard._source.frames()
    known.apply(shown_document(json.loads((await anext(frames))[1])))
    await frames.aclose()
    return known


def drawn(known: DashboardState, width: int, height: int, *keys: str) -> list[str]:
    from director.cli._rich import EscapingConsole
    from director.cli._top.screen import Screen

    console = EscapingConsole(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    screen = Screen(console)
    for key in keys:
        screen.press(key, known)
    with console.capture() as captured:
        console.print(screen.picture(known), end="")
    return captured.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(60, 20), (200, 60)])
@pytest.mark.parametrize("devices", [1, 64, 300])
@pytest.mark.parametrize("keys", [(), ("next",), ("next", "next"), ("previous", "down", "page down", "up")])
async def test_the_screen_fits_any_terminal(width: int, height: int, devices: int, keys: tuple[str, ...]) -> None:
    pytest.importorskip("rich")
    director = Director(f"simulated:{devices}", name="a name that is rather long for a terminal of sixty columns")
    dashboard = Dashboard(director)
    async with director:
        await asyncio.gather(*[director.submit(str, name=f"function {n}") for n in range(50)])
        known = await known_of(director, dashboard)
    lines = drawn(known, width, height, *keys)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert lines[-1].startswith("tab other list")


def test_a_reader_that_has_enough_is_no_trouble(app: App) -> None:
    command = f"{sys.executable} -m director top {app.path} --every 0.1 --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert json.loads(done.stdout)["name"] == "vision"
    assert done.stderr == ""


@pytest.mark.parametrize(("devices", "height"), [(3, 24), (16, 24)])
async def test_a_device_that_is_out_of_service_does_not_take_the_room_of_the_others(devices: int, height: int) -> None:
    pytest.importorskip("rich")

    def break_it(device: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    director = Director(f"simulated:{devices}")
    dashboard = Dashboard(director)
    async with director:
        with pytest.raises(RuntimeError):
            await director.run(break_it)
        assert any(each.reason for each in director.stats().devices)
        known = await known_of(director, dashboard)
    lines = drawn(known, 80, height)
    told = [line for line in lines if " is quarantined: RuntimeError: CUDA error: an illegal memory acc" in line]
    assert len(told) == 1
    assert sum(line.count("simulated:") for line in lines) == devices + 1
    assert len(lines) <= height
    assert all(len(line) <= 80 for line in lines)


async def test_what_an_app_says_does_not_command_the_terminal() -> None:
    """Names and errors may hold what a user has sent."""
    pytest.importorskip("rich")
    evil = "\x1b[2J\x1b]0;owned\x07\nnext\udcff"

    def fail(device: object) -> None:
        raise ValueError(evil)

    def wait(device: object) -> None:
        began.set()
        freed.wait(20)

    director, began, freed = Director("simulated:1", name=evil), threading.Event(), threading.Event()
    dashboard = Dashboard(director)
    async with director:
        await asyncio.gather(director.submit(fail, name=evil), return_exceptions=True)
        jobs = [director.submit(wait, name=evil) for _ in range(2)]
        await asyncio.to_thread(began.wait)
        known = await known_of(director, dashboard)
        looks = [
            *report(shown_document(await dashboard.snapshot())),
            *drawn(known, 300, 24),
            *drawn(known, 300, 24, "next"),
        ]
        looks += [*drawn(known, 300, 24, "next", "next"), *drawn(known, 300, 24, "previous")]
        looks += describe("failure", shown_document(await dashboard._source.failure(1)))
        looks += describe("job", shown_document(await dashboard._source.job(1)))
        freed.set()
        await asyncio.gather(*jobs)
    assert [line for line in looks if not line.isprintable()] == []
    assert sum("\\x1b[2J" in line for line in looks) >= 12


def test_strips_are_as_high_as_the_slots_were_busy() -> None:
    known = DashboardState(identity={"window": 10.0}, seen={"at": 110.0, "calls": {"1": [109.0, 1, 3, "f"]}})
    known.tracks[0] = Track(0, [[100.0, 105.0, 1, 5.0, 0, False, 1, "f"], [106.0, 108.0, 9, 1.0, 2, False, 9, "f"]])
    assert known.strip([0], 5) == [(1.0, False), (1.0, False), (0.5, False), (0.5, False), (0.0, True)]
    assert known.strip([0, 1], 10)[-1] == (0.5, False)
    assert known.strip([7], 2) == [(0.0, False), (0.0, False)]


def test_tracks_are_put_together_from_what_frames_tell() -> None:
    track = Track()
    track.replace(3, [[0, 1], [1, 2], [2, None]])
    track.replace(5, [[2, 3]])
    assert (track.first, track.rows) == (3, [[0, 1], [1, 2], [2, 3]])
    track.replace(4, [])
    assert track.rows == [[0, 1]]
    track.replace(9, [[5, 6]])
    assert (track.first, track.rows) == (9, [[5, 6]]), "what lies between was never told"
    track.replace(2, [[0, 1]])
    assert (track.first, track.rows) == (2, [[0, 1]])
    track.forget(1)
    assert (track.first, track.rows) == (3, [])


async def test_the_report_of_a_director_that_is_new() -> None:
    director = Director("simulated:1", name=None)
    lines = list(report(await Dashboard(director).snapshot()))
    assert lines[0].startswith("director: new for ")
    assert lines[1] == ("0 waiting, 0 running, 0 of 0 slots busy; last 10 s: 0/s, wait p50 -, p99 -, run p50 -, p99 -")


# ---- the web


class Web:
    """`director top --web` in a process of its own."""

    def __init__(self, path: Path, *options: str) -> None:
        command = [sys.executable, "-m", "director", "top", str(path), "--web", "--port", "0", *options]
        env = {key: value for key, value in os.environ.items() if key != "DIRECTOR_TOKEN"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        assert self.process.stderr is not None
        self.address = self.process.stderr.readline().strip()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)
        return self.process.returncode


@pytest.fixture
def start_web(app: App) -> Iterator[Callable[..., Web]]:
    started: list[Web] = []

    def start(*options: str) -> Web:
        pytest.importorskip("uvicorn")
        started.append(Web(app.path, *options))
        return started[-1]

    yield start
    for web in started:
        web.process.kill()
        web.process.communicate()


def fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as answer:
        text: Any = answer.read().decode()
    return str(text)


def test_the_page_of_an_app_that_serves_none(start_web: Callable[..., Web]) -> None:
    web = start_web()
    assert re.fullmatch(r"http://localhost:\d+/", web.address)
    for page in (web.address, web.address.replace("localhost", "127.0.0.1")):
        assert "<title>director</title>" in fetch(page)
    assert json.loads(fetch(f"{web.address}snapshot"))["name"] == "vision"
    assert json.loads(fetch(f"{web.address}jobs/1"))["state"] == "failed"
    assert web.end() == 130


def test_when_the_app_has_gone_the_page_is_told(start_web: Callable[..., Web], app: App) -> None:
    web = start_web()
    app.end()
    with pytest.raises(urllib.error.HTTPError, match="502"):
        fetch(f"{web.address}snapshot")


def test_elsewhere_it_wants_a_token(start_web: Callable[..., Web]) -> None:
    web = start_web("--host", "0.0.0.0")
    found = re.fullmatch(r"http://0\.0\.0\.0:(\d+)/#token=(\S{32})", web.address)
    assert found
    local = f"http://127.0.0.1:{found[1]}/snapshot"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        fetch(local)
    assert json.loads(fetch(f"{local}?token={found[2]}"))["name"] == "vision"


def test_a_port_that_is_taken(app: App, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["top", str(app.path), "--web", "--host", "127.0.0.1", "--port", port]) == 1
    assert "Address already in use" in capfd.readouterr().err


def test_without_uvicorn_it_says_what_to_install(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "director.cli._top.web", raising=False)
    assert main(["top", str(app.path), "--web"]) == 2
    assert "pip install 'gpu-director[dashboard]'" in capsys.readouterr().err
