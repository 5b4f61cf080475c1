#!/usr/bin/env python3
"""Everything a developer runs, each in an environment of its own.

With nothing but Python and a network::

    python3 noxfile.py              # ruff, mypy, pyright and the tests, without the slow ones: some five minutes
    python3 noxfile.py -s quick     # the tests that start no processes: a minute or two
    python3 noxfile.py -s full      # the slow tests, and those with Ray: about twelve minutes
    python3 noxfile.py -s tests -- tests/public -k batch  # what pytest is told
    python3 noxfile.py -s dist      # wheel and sdist
    python3 noxfile.py -s demo      # the demonstration
    python3 noxfile.py -l           # what else there is

Run as a script, this file first installs nox into ``.nox/bootstrap`` and hands over to it; with a nox of your own,
plain ``nox`` does the same. Nothing outside ``.nox`` is touched, so a Python that its distribution manages (PEP 668)
is fine. After the first run no network is needed. To start afresh, delete ``.nox``.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from subprocess import run
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".nox"
NOX = "nox>=2025.5.1"


class Stamp:
    """The file in an environment that says what it was made from; written last, so only a whole one has it."""

    def __init__(self, environment: Path, *made_from: str) -> None:
        self.path = environment / "made-from.txt"
        self.text = "\n".join([str(HERE), *made_from])  # an environment holds absolute paths: moved means stale

    def __bool__(self) -> bool:
        return self.path.is_file() and self.path.read_text() == self.text

    def write(self) -> None:
        self.path.write_text(self.text)


# As a script: the standard library alone, until nox is there.


def bootstrap() -> None:
    """Install nox unless that is done, then become it."""
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python has to be told
        sys.exit(f"director needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.")
    ENVIRONMENTS.mkdir(exist_ok=True)
    wait_for_others(ENVIRONMENTS)
    home = ENVIRONMENTS / "bootstrap"
    stamp = Stamp(home, NOX, sys.base_prefix, sys.version)
    if not stamp:
        print(f"Setting up {home} (the first time only) ...", file=sys.stderr, flush=True)
        discard(ENVIRONMENTS.glob("*/"))  # another Python's environments are of no use to this one
        install_nox(home)
        stamp.write()
    discard(home for home in ENVIRONMENTS.glob("*/") if not Stamp(home).path.exists())  # left by a run that was cut off
    os.environ.pop("PYTHONPATH", None)  # what it names would come before what the environments hold
    python = str(home / "bin" / "python")
    os.execv(python, [python, "-m", "nox", "-f", str(HERE / "noxfile.py"), *sys.argv[1:]])


def wait_for_others(folder: Path) -> None:
    """Hold `folder` for this process and the nox it becomes: two runs must not install into one environment."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another run uses {folder}; waiting for it to end ...", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def discard(folders: Iterable[Path]) -> None:
    import shutil

    for folder in list(folders):
        shutil.rmtree(folder)


def install_nox(home: Path) -> None:
    """Make a virtual environment with nox in it, by its own pip or else by that of the Python that runs this."""
    import venv

    venv.create(home, symlinks=True)
    python = str(home / "bin" / "python")
    # Not `with_pip=True`: where Debian's python3-venv is missing, that prints advice and exits.
    if run([python, "-Im", "ensurepip"], capture_output=True).returncode == 0:
        pip = [python, "-m", "pip"]
    elif find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "--python", python]
    else:
        sys.exit(f"{sys.executable} has neither ensurepip nor pip. On Debian or Ubuntu: apt install python3-venv")
    if run([*pip, "install", "--quiet", "--disable-pip-version-check", NOX]).returncode != 0:
        sys.exit(f"Installing {NOX} failed; pip says above why. Is there a network?")


if __name__ == "__main__":
    bootstrap()


# As nox's own file.

import nox  # noqa: E402

nox.needs_version = NOX.removeprefix("nox")
nox.options.default_venv_backend = "virtualenv"  # carries its own pip, so ensurepip isn't needed here either
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False
PYPROJECT = HERE / "pyproject.toml"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}  # hundreds of processes would compile the package, each for itself
WITH_TESTS = {"PYTHONPATH": str(HERE / "tests")}
TORCH = "torch==2.13.0"
WITH_TORCH = [
    "tests/frameworks",
    "tests/gpu",
    "tests/executors/process/test_memory.py",
    "tests/cli/test_digits_example.py",
]


def set_up(session: nox.Session, *requirements: str, group: str | None = None) -> None:
    """Install `requirements` and a dependency group (PEP 735), unless nothing has changed since that was done."""
    stamp = Stamp(Path(session.virtualenv.location), *requirements, group or "", PYPROJECT.read_text())
    if stamp:
        return
    stamp.path.unlink(missing_ok=True)
    project = nox.project.load_toml(PYPROJECT)
    session.install(*requirements, *(nox.project.dependency_groups(project, group) if group else ()))
    stamp.write()


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: style, likely mistakes, layout."""
    set_up(session, group="lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy and pyright, strict, on the typing tests below tests/typing; whether every public type is known to both."""
    set_up(session, "-e", ".[cli,fastapi,prometheus,otel]", group="types")
    session.run("mypy", *session.posargs)
    session.run("basedpyright", "--project", "tests/typing")
    session.run("basedpyright", "--verifytypes", "director", "--ignoreexternal", env={"PYTHONPATH": str(HERE)})


def run_pytest(session: nox.Session, *arguments: str, env: dict[str, str], parallel: tuple[str, ...] = ()) -> None:
    """Run tests; in CI those that fail are run once more, alone.

    A test that fails only beside others is a fault as well, of the test or of the package: the first report stays in
    the output, to be followed up.
    """
    try:
        session.run("pytest", *parallel, *arguments, env=env)
    except nox.command.CommandFailed as failed:
        if not os.environ.get("CI") or str(failed) != "Returned code 1":  # 1: all were run, and some have failed
            raise
        session.warn("FLAKY, or broken: each test that failed above is run once more, with nothing beside it")
        session.run("pytest", "--last-failed", "--last-failed-no-failures", "none", *arguments, env=env)


def run_tests(session: nox.Session, chosen: str, *arguments: str, **variables: str) -> None:
    """Two at a time those that are marked so; a file's tests stay together, as they share fixtures."""
    two = ("-n", "2", "--dist", "loadfile", "--max-worker-restart", "4")
    run_pytest(session, "-m", chosen, *arguments, env={**BYTECODE, **variables}, parallel=two)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests that aren't slow; arguments after -- go to pytest, which then leaves none out."""
    set_up(session, "-e", ".[all]", group="test")
    if session.posargs:
        session.run("pytest", *session.posargs, env=BYTECODE)
    else:
        run_tests(session, "not slow and not serial")


@nox.session(default=False)
def quick(session: nox.Session) -> None:
    """The tests that start no processes and try no properties; arguments after -- go to pytest."""
    set_up(session, "-e", ".[all]", group="test")
    run_tests(session, "not slow and not serial and not programs and not hypothesis", *session.posargs)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """The tests, and what of the code they run; nearly twice the time of the tests alone."""
    set_up(session, "-e", ".[all]", group="test")
    measured = {"COVERAGE_FILE": str(Path(session.create_tmp(), "coverage"))}
    session.run("coverage", "erase", env=measured)
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=measured)
    session.run("coverage", "combine", "--quiet", env=measured)
    session.run("coverage", "report", env=measured)


@nox.session(default=False)
def full(session: nox.Session) -> None:
    """The tests that `tests` leaves out, those of properties with all examples, a storm; `dist` and `ray` follow."""
    set_up(session, "-e", ".[all]", group="full")
    everything = {"DIRECTOR_TESTS": "full", "DIRECTOR_ZOO": "all"}
    patience = "--timeout=300"  # seconds of one test: these import much and start many processes
    run_tests(session, "(slow or hypothesis) and not serial", patience, **everything)
    session.run("pytest", "-m", "serial", patience, env={**BYTECODE, **everything})
    session.notify("dist")
    session.notify("ray")
    storm = ["--seconds", "30", "--jobs", "4000", "--values", "100000"]
    session.run("python", "-m", "benchmarks.chaos", *storm, env=WITH_TESTS)


@nox.session(default=False)
def ray(session: nox.Session) -> None:
    """The tests with a Ray cluster on this machine, where Ray can be installed; arguments after -- go to pytest."""
    try:
        set_up(session, "-e", ".[ray]", "ray[serve]", "numpy", group="test")
    except nox.command.CommandFailed:
        session.skip("Ray can't be installed here: there is none for this Python or platform")
    run_pytest(session, *(session.posargs or ["tests/executors/ray"]), env={"RAY_USAGE_STATS_ENABLED": "0"})


@nox.session(default=False)
def dist(session: nox.Session) -> None:
    """Wheel and sdist: built, checked, tested with each other; a folder after -- keeps them."""
    set_up(session, ".[all,process]", "build>=1.2", "twine>=6", group="test")
    scratch = Path(session.create_tmp()).resolve()
    folder = Path(*session.posargs[:1]).resolve() if session.posargs else scratch / "dist"
    unpacked = scratch / "unpacked"
    discard(old for old in (scratch / "dist", unpacked) if old.exists())
    unpacked.mkdir()
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(folder), silent=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.run("tar", "xzf", str(sdist), "-C", str(unpacked), "--strip-components=1", external=True)
    session.chdir(unpacked)  # whose tests import the installed wheel
    session.run("pytest", "--collect-only", "-qq", silent=True)
    session.run("pytest", "tests/jobs", "tests/scheduler", "tests/test_packaging.py", env=BYTECODE)


@nox.session(python=PYTHONS, default=False)
def matrix(session: nox.Session) -> None:
    """The tests on each supported Python that this machine has."""
    set_up(session, "-e", ".[all]", group="test")
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def torch(session: nox.Session) -> None:
    """The tests with torch, on the machine's GPUs or its processor; some 200 MB to download, with CUDA gigabytes."""
    set_up(session, "-e", ".[all,process]", TORCH, group="test")
    run_pytest(session, *(session.posargs or WITH_TORCH), env=BYTECODE)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation site, in build/site; a broken link is an error; arguments after -- go to mkdocs."""
    set_up(session, "-e", ".", group="docs")
    command = session.posargs or ["build"]
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # an advertisement of its theme
    session.run("mkdocs", command[0], "--config-file", "docs/site/mkdocs.yml", *command[1:], env=quiet)


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """The demonstration; arguments after -- go to it."""
    set_up(session, "-e", ".[demo]")
    session.run("director", "demo", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """What a Director costs beside what people use without one; arguments after -- replace --quick."""
    set_up(session, "-e", ".[prometheus,otel]", "aiojobs", "uvloop")
    session.run("director", "bench", *(session.posargs or ["--quick"]))


@nox.session(default=False)
def theory(session: nox.Session) -> None:
    """The experiments that check the design, beside their goals; arguments after -- replace --quick --goals."""
    set_up(session, "-e", ".[prometheus,otel]", "uvloop")
    session.run("python", "-m", "benchmarks.theory", *(session.posargs or ["--quick", "--goals"]), env=WITH_TESTS)


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """A storm in which everything goes wrong at random, of a minute or more; arguments after -- go to it."""
    set_up(session, "-e", ".", "cloudpickle")
    session.run("python", "-m", "benchmarks.chaos", *session.posargs, env=WITH_TESTS)


@nox.session(default=False)
def peers(session: nox.Session) -> None:
    """A Director behind FastAPI against LitServe and mosec; arguments after -- go to it."""
    set_up(session, "-e", ".[fastapi]", group="peers")
    session.run("python", "-m", "benchmarks.http", *session.posargs, env=WITH_TESTS)


@nox.session(default=False)
def cluster(session: nox.Session) -> None:
    """A Director over a Ray cluster on this machine against Ray by itself; arguments after -- go to it."""
    set_up(session, "-e", ".[ray]")
    session.run("python", "-m", "benchmarks.cluster", *session.posargs, env=WITH_TESTS)


@nox.session(default=False)
def routers(session: nox.Session) -> None:
    """A Director against the routers of Ray Serve, where that can be installed; arguments after -- go to it."""
    try:
        set_up(session, "-e", ".[ray]", "ray[serve]")
    except nox.command.CommandFailed:
        set_up(session, "-e", ".[ray]")
    session.run("python", "-m", "benchmarks.routers", *session.posargs, env=WITH_TESTS)


@nox.session(default=False)
def pictures(session: nox.Session) -> None:
    """The pictures of the documentation, taken anew; needs chromium."""
    set_up(session, "-e", ".")
    session.run("python", "docs/images/make.py")
    session.run("python", "docs/images/journey.py")


@nox.session(default=False)
def sharing(session: nox.Session) -> None:
    """What it costs when processes share slots; arguments after -- go to it."""
    set_up(session, "-e", ".")
    session.run("python", "-m", "benchmarks.sharing", *session.posargs, env=WITH_TESTS)
