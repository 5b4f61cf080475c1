"""The pages say what the code says: every public name, table and link. (docs/conftest.py runs their python blocks.)"""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import director
from director import (
    BatchOptions,
    Device,
    DeviceStats,
    Director,
    DirectorState,
    Function,
    FunctionStats,
    HealthRules,
    Job,
    JobOptions,
    JobState,
    Model,
    Stats,
    errors,
    events,
    guard,
    hooks,
    logs,
    otel,
    prometheus,
    ray,
    testing,
    timeline,
)
from director._devices.health.rules import HEALTH_MOVES
from director._jobs.state import JOB_MOVES
from director._scheduler.slots import SLOT_MOVES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import Enum

JOB_OPTIONS = JobOptions.__annotations__
ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
REFERENCE = sorted((DOCS / "reference").glob("*.md"))

# The words of the house, and those that say nothing.
WORDS = (
    "job, task, device, slot, permit, worker, shift, ready queue, admission, backpressure, placement, scheduler, reap, "
    "executor, runner, channel, prefetch, replica, resident, drain, close, deadline, timeout, stats, event"
)
EMPTY_WORDS = re.compile(
    r"\b((?<!context )managers?|handlers?|helpers?|utils?|utilit(?:y|ies)|blazing\w*|seamless\w*|simply)\b", re.I
)
PERSONS = re.compile(r"\b(some(?:body|one)|whoever|nobody|no one|anybody|every(?:body|one))\b", re.I)


# ---- Markdown, as much of it as is needed here


def prose(text: str) -> str:
    """A page without code blocks and comments, as many lines long."""
    return re.sub(r"^```.*?^```$|<!--.*?-->", lambda m: "\n" * m[0].count("\n"), text, flags=re.S | re.M)


def words_only(text: str) -> str:
    """Prose without inline code and without the targets of links."""
    return re.sub(r"`[^`]*`|\]\([^)]*\)", " ", prose(text))


def links(text: str) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(text))


@cache
def anchors(page: Path) -> frozenset[str]:
    """What the headings of a page can be linked to by, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text()), re.M)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def tables(page: str, heading: str) -> Iterator[list[list[str]]]:
    """The tables below a heading, up to the next one: rows of cells, without the head."""
    text = prose((DOCS / page).read_text())
    parts = re.split(r"^#+ (.+)$", text, flags=re.M)
    (section,) = (body for title, body in zip(parts[1::2], parts[2::2], strict=True) if title == heading)
    for block in re.findall(r"(?:^\|.*\n?)+", section, re.M):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.strip().splitlines()]
        yield rows[2:]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def column(page: str, heading: str, number: int = 0) -> list[str]:
    """What is in code in one column of the first table below a heading."""
    return [code for row in next(tables(page, heading)) for code in codes(row[number])]


# ---- links


def broken(page: Path, target: str) -> bool:
    """Whether a link leads nowhere; what is outside of the project isn't asked."""
    if re.match(r"[a-z]+:", target):
        return False
    path, _, anchor = target.partition("#")
    goal = (page.parent / path).resolve() if path else page
    return not goal.exists() or bool(anchor and anchor not in anchors(goal))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [target for target in links(page.read_text()) if broken(page, target)] == []


def test_every_page_can_be_found_from_the_index() -> None:
    index = DOCS / "index.md"
    found = {(DOCS / target.partition("#")[0]).resolve() for target in links(index.read_text())}
    assert [page for page in PAGES[1:] if page not in found and page != index] == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `code` & two\n\n```\n# no heading\n[no](link.md)\n```\n[a](#one-code--two) [b](#no-heading) [c](no.md)\n"
    )
    assert [target for target in links(page.read_text()) if broken(page, target)] == ["#no-heading", "no.md"]


# ---- public names


def public_names() -> Iterator[str]:
    yield from director.__all__
    for module in (testing, timeline, guard, logs, otel, prometheus, ray):
        yield from module.__all__
    for module in (errors, events, hooks):
        yield from (
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__
        )


def test_every_public_name_is_in_the_reference() -> None:
    reference = "\n".join(page.read_text() for page in REFERENCE)
    said = set(re.findall(r"\w+", " ".join(codes(prose(reference)) + re.findall(r"^#+ (.+)$", reference, re.M))))
    assert sorted(set(public_names()) - said) == []


def test_the_module_has_what_it_names() -> None:
    assert [name for name in director.__all__ if not hasattr(director, name)] == []


@pytest.mark.parametrize(
    ("cls", "pages"),
    [
        (Director, ["director.md"]),
        (Job, ["jobs.md"]),
        (Function, ["director.md"]),
        (testing.TestClock, ["testing.md"]),
        (timeline.Timeline, ["timeline.md"]),
        (guard.Guard, ["guard.md", "hooks.md"]),
        (guard.Finding, ["guard.md"]),
        (hooks.JobRecord, ["hooks.md"]),
        (prometheus.DirectorCollector, ["metrics.md"]),
        (testing.SimulatedDevice, ["testing.md", "devices.md"]),
    ],
)
def test_every_public_member_is_in_the_reference(cls: type, pages: list[str]) -> None:
    own = [member for base in cls.__mro__ if base.__module__.startswith("director") for member in vars(base)]
    text = " ".join(" ".join(codes(prose((DOCS / "reference" / page).read_text()))) for page in pages)
    refused = {"set_result", "set_exception"}  # of a Job, which has them to say that they are not for callers
    public = {member for member in own if not member.startswith("_")} - refused
    assert sorted(member for member in public if not re.search(rf"\b{member}\b", text)) == []


# ---- tables


def arguments(fn: Any) -> list[str]:
    return [name for name in inspect.signature(fn).parameters if name != "self"]


def defaults(fn: Any) -> dict[str, Any]:
    parameters = inspect.signature(fn).parameters.items()
    return {name: each.default for name, each in parameters if each.default is not inspect.Parameter.empty}


def fields(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(
    ("page", "heading", "names"),
    [
        ("reference/director.md", "Director", arguments(Director)),
        ("reference/jobs.md", "Options", list(JobOptions.__annotations__)),
        ("reference/director.md", "stream", list(defaults(Director.stream))),
        (
            "reference/batches.md",
            "Options",
            [
                "max_batch_size",
                *(name for name in BatchOptions.__annotations__ if name not in JobOptions.__annotations__),
            ],
        ),
        ("reference/models.md", "Models", arguments(Model)),
        ("reference/devices.md", "Device", fields(Device)),
        ("reference/stats.md", "Stats", fields(Stats)),
        ("reference/stats.md", "DeviceStats", fields(DeviceStats)),
        ("reference/stats.md", "FunctionStats", fields(FunctionStats)),
        ("reference/faults.md", "HealthRules", fields(HealthRules)),
        ("reference/testing.md", "simulated_devices", arguments(testing.simulated_devices)),
        ("reference/ray.md", "RayExecutor", fields(ray.RayExecutor)),
    ],
)
def test_a_table_has_exactly_what_the_code_has(page: str, heading: str, names: list[str]) -> None:
    assert column(page, heading) == names


@pytest.mark.parametrize(
    ("page", "heading", "made"),
    [("director", "Director", Director), ("director", "stream", Director.stream), ("models", "Models", Model)],
)
def test_a_table_tells_the_defaults(page: str, heading: str, made: Any) -> None:
    told = {row[0].strip("`"): codes(row[1]) for row in next(tables(f"reference/{page}.md", heading))}
    assert {name: [repr(value).replace("'", '"')] for name, value in defaults(made).items()} == {
        name: default for name, default in told.items() if default
    }


def test_the_signatures_are_those_of_the_code() -> None:
    for page, name, made in [
        ("director", "director.Director", Director),
        ("models", "director.Model", Model),
        ("testing", "simulated_devices", testing.simulated_devices),
        ("timeline", "director.timeline.Timeline", timeline.Timeline),
        ("guard", "director.guard.Guard", guard.Guard),
        ("tracing", "director.otel.Spans", otel.Spans),
        ("ray", "director.ray.RayExecutor", ray.RayExecutor),
    ]:
        text = (DOCS / "reference" / f"{page}.md").read_text()
        (signature,) = re.findall(rf"^`{re.escape(name)}\((.*?)\)(?: ->.*)?`$", text, re.M)
        parameters = inspect.signature(made).parameters.values()
        bare = inspect.Signature([each.replace(annotation=inspect.Parameter.empty) for each in parameters])
        assert f"({signature})" == str(bare).replace("'", '"')


def test_the_table_of_events() -> None:
    kinds = {name: cls for name, cls in vars(events).items() if inspect.isclass(cls) and issubclass(cls, events.Event)}
    made = {name: cls for name, cls in kinds.items() if not cls.__subclasses__()}
    told = {codes(row[0])[0]: codes(row[1]) for row in next(tables("reference/events.md", "Events"))}
    assert told == {name: fields(cls) for name, cls in made.items()}


def test_the_table_of_errors() -> None:
    kinds = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, Exception)}
    rows = list(next(tables("reference/errors.md", "Errors")))
    assert {codes(row[0])[0]: codes(row[1]) for row in rows} == {
        name: [base.__name__ for base in cls.__bases__] for name, cls in kinds.items()
    }
    own = {name: arguments(cls) for name, cls in kinds.items() if "__init__" in vars(cls)}
    assert {codes(row[0])[0]: codes(row[2]) for row in rows if codes(row[2])} == own


def moves(page: str, heading: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in next(tables(page, heading)):
        for state in codes(row[0]):
            found.setdefault(state, set()).update(codes(row[1]))
    return found


@pytest.mark.parametrize(
    ("page", "heading", "legal"),
    [
        ("reference/jobs.md", "JobState", JOB_MOVES),
        ("reference/faults.md", "Health", HEALTH_MOVES),
        ("explanation/design.md", "The shift", SLOT_MOVES),
    ],
)
def test_a_table_of_states_has_the_legal_moves(page: str, heading: str, legal: dict[Enum, frozenset[Enum]]) -> None:
    expected = {state.name: {to.name for to in goals} for state, goals in legal.items() if goals}
    assert moves(page, heading) == expected


def test_every_state_is_told() -> None:
    assert column("reference/director.md", "DirectorState") == [state.name for state in DirectorState]
    final = {state.name for state, goals in JOB_MOVES.items() if not goals}
    assert set(moves("reference/jobs.md", "JobState")) | final == {state.name for state in JobState}


def test_the_table_of_xids() -> None:
    def numbers(cell: str) -> set[int]:
        spans = re.findall(r"(\d+)(?: to (\d+))?", cell)
        return {number for first, last in spans for number in range(int(first), int(last or first) + 1)}

    told = {codes(row[0])[0]: numbers(row[2]) for row in next(tables("reference/faults.md", "XIDs"))}
    rules = HealthRules()
    assert told == {"fatal_xids": rules.fatal_xids, "harmless_xids": rules.harmless_xids}


# ---- words


def glossary() -> list[list[str]]:
    """The words for users, and those of the code."""
    parts = (DOCS / "glossary.md").read_text().split("\n## Inside\n")
    return [re.findall(r"^- \*\*(.+?)\*\*: ", part, re.M) for part in parts]


def test_the_glossary_has_the_words_of_the_house_in_order() -> None:
    words, inside = glossary()
    assert words == sorted(words, key=str.lower)
    assert inside == sorted(inside, key=str.lower)
    assert sorted(set(WORDS.split(", ")) - {*words, *inside}) == []


def test_every_word_of_the_glossary_is_used() -> None:
    text = " ".join(page.read_text() for page in PAGES if page.name != "glossary.md")
    assert [word for part in glossary() for word in part if not re.search(rf"\b{word}(s|ed|es)?\b", text, re.I)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_empty_words(page: Path) -> None:
    assert EMPTY_WORDS.findall(words_only(page.read_text())) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_acts_is_named(page: Path) -> None:
    """The client, the caller, the event loop, another process: a reader can't guess which."""
    assert PERSONS.findall(words_only(page.read_text())) == []


def test_the_sessions_that_the_pages_name_exist() -> None:
    sessions = re.findall(r"@nox.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text())
    named = [name for page in PAGES for name in re.findall(r"noxfile\.py -s (\w+)", page.read_text())]
    assert "demo" in named
    assert set(named) <= set(sessions)
