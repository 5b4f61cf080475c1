"""What is built is what is promised: every file, the type marker, the commands, the dependencies, one version."""

from __future__ import annotations

import ast
import email
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import director

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MOST_BYTES = 855_000  # of the wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, without git's records."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the sdist as an index would serve it."""
    dist = tmp_path_factory.mktemp("dist")
    build(tree, dist, "sdist")
    (sdist,) = dist.glob("*.tar.gz")
    subprocess.run(["tar", "xzf", str(sdist), "-C", str(dist)], check=True)  # tarfile's filters: 3.11.4 and later
    build(sdist.with_name(sdist.name.removesuffix(".tar.gz")), dist, "wheel")
    (built,) = dist.glob("*.whl")
    return zipfile.ZipFile(built)


def build(tree: Path, dist: Path, target: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(dist)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (path,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    return email.message_from_bytes(wheel.read(path))


def test_the_wheel_holds_every_file_of_the_package_and_no_other(tree: Path, wheel: zipfile.ZipFile) -> None:
    package = {str(path.relative_to(tree)) for path in (tree / "director").rglob("*") if path.is_file()}
    assert "director/py.typed" in package
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == package
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_is_small(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename
    assert Path(wheel.filename).stat().st_size <= MOST_BYTES


def test_the_sdist_has_what_its_tests_need(tree: Path, wheel: zipfile.ZipFile) -> None:
    """Its own tests are run from it by `python3 noxfile.py -s dist`."""
    assert wheel.filename
    (unpacked,) = (path for path in Path(wheel.filename).parent.iterdir() if path.is_dir())
    for folder in ("tests", "docs"):
        wanted = {path.relative_to(tree) for path in (tree / folder).rglob("*") if path.is_file()}
        assert wanted - {path.relative_to(unpacked) for path in (unpacked / folder).rglob("*")} == set()


def test_the_classifiers_name_the_pythons_that_are_tested() -> None:
    listed = re.search(r"^PYTHONS = (\[.*\])$", (ROOT / "noxfile.py").read_text(), re.M)
    assert listed
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert named <= set(ast.literal_eval(listed[1])), "a Python that `python3 noxfile.py -s matrix` can't test"
    told = set(re.findall(r"^\| (3\.\d+) \|", (ROOT / "docs/reference/versions.md").read_text(), re.M))
    assert named == told, "docs/reference/versions.md says what holds for each"


def test_the_core_needs_two_packages(metadata: Message) -> None:
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.partition("<")[0].partition(">")[0] for line in needed) == ["anyio", "nvidia-ml-py"]


def test_the_metadata_says_what_it_is(metadata: Message) -> None:
    assert metadata["Name"] == "gpu-director"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_both_commands_lead_to_the_same_place(wheel: zipfile.ZipFile) -> None:
    (path,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entries = ConfigParser()
    entries.read_string(wheel.read(path).decode())
    assert dict(entries["console_scripts"]) == {"director": "director.cli:main", "gpu-director": "director.cli:main"}
    for entry in importlib.metadata.entry_points(group="console_scripts", value="director.cli:main"):
        assert callable(entry.load())


def test_the_version_is_the_one_in_the_code(metadata: Message) -> None:
    assert metadata["Version"] == director.__version__
    assert "version" not in PROJECT, "written twice"


@pytest.mark.parametrize("command", [["-m", "director"], [str(Path(sys.executable).with_name("director"))]])
def test_the_command_runs(command: list[str]) -> None:
    interpreter = [sys.executable] if command[0] == "-m" else []
    assert "usage: " in subprocess.run([*interpreter, *command, "--help"], capture_output=True, text=True).stdout


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_a_template_of_issues_is_a_form_as_github_takes_it(form: str) -> None:
    written = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())
    assert {"name", "description", "body"} <= set(written) <= {"name", "description", "body", "labels", "title"}
    assert len({part["id"] for part in written["body"]}) == len(written["body"])
    for part in written["body"]:
        assert part["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert part["attributes"]["label"]
