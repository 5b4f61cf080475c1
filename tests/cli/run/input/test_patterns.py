"""INPUT words to paths: what a pattern matches, and that links don't multiply it."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from director.cli._run.input.patterns import expand

FILES = ["1.png", "a/2.png", "a/3.txt", "a/b/4.png", "a/b/c/5.png", ".hidden/6.png", "a/.7.png", "x[1]/8.png"]


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def globbed(pattern: str) -> list[str]:
    found = set(glob.glob(pattern, recursive=True))  # noqa: PTH207 -- the same words
    return sorted(path for path in found if not Path(path).is_dir())


@pytest.mark.parametrize(
    "pattern",
    [
        "**/*.png",
        "*.png",
        "a/**/*.png",
        "a/**",
        "**",
        "**/b/*.png",
        "**/b/**/*.png",
        "*/*.png",
        "./a/**/[45].png",
        "x[[]1]/**/*",
        "**/?.png",
        ".hidden/*",
        "a/.*.png",
    ],
)
def test_without_links_it_is_what_glob_finds(pattern: str) -> None:
    found = globbed(pattern)
    assert found
    assert list(expand(pattern).paths) == found


def test_the_same_from_the_root_of_the_file_system(tree: Path) -> None:
    assert list(expand(f"{tree}/**/*.png").paths) == globbed(f"{tree}/**/*.png")


def test_a_link_to_a_folder_of_the_tree_adds_nothing(tree: Path) -> None:
    """7,677 files were 15,354 items."""
    before = expand("**/*.png").paths
    (tree / "A link that sorts first").symlink_to("a")
    (tree / "a" / "b" / "up").symlink_to("../..")
    (tree / "a" / "here").symlink_to(".")
    (tree / "z").symlink_to(tree)
    assert expand("**/*.png").paths == before
    assert expand("**/**/*.png").paths == before


def test_links_that_lead_to_each_other_end(tree: Path) -> None:
    for one, other in (("l1", "l2"), ("l2", "l1")):
        (tree / one).symlink_to(other)
    (tree / "broken").symlink_to("nowhere")
    for name in "mnopq":
        (tree / name).symlink_to(".")
    assert len(expand("**/*.png").paths) == 5


def test_a_link_to_a_folder_elsewhere_is_followed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "9.png").touch()
    (tree / "a" / "link").symlink_to(elsewhere)
    assert "a/link/9.png" in expand("**/*.png").paths


def test_links_to_files_are_files_of_their_own(tree: Path) -> None:
    (tree / "again.png").symlink_to("1.png")
    assert {"1.png", "again.png"} <= set(expand("*.png").paths)


def test_a_folder_through_two_links_of_one_star(tree: Path) -> None:
    (tree / "link1").symlink_to("a/b/c")
    (tree / "link2").symlink_to("a/b/c")
    assert list(expand("*/5.png").paths) == ["link1/5.png"]


@pytest.mark.parametrize(
    ("word", "root"),
    [
        ("a/**/*.png", "a"),
        ("*.png", ""),
        ("a/b/*.png", "a/b"),
        ("a/2.png", "a"),
        ("1.png", ""),
        ("./a/*.png", "./a"),
    ],
)
def test_the_root_of_a_word(word: str, root: str) -> None:
    assert expand(word).root == root


def test_the_root_of_an_absolute_word(tree: Path) -> None:
    assert expand(f"{tree}/*.png").root == str(tree)
