"""The page about a run: what it says, that it is safe and needs no network, and that a browser can show it."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from director import Director, Model
from director.timeline import Timeline
from director.timeline._page import histogram, page
from director.timeline._page_data import deltas, document, packed
from director.timeline._story import Incident, Load, MemorySample, Story
from timeline.browser import dom_of, needs_browser
from timeline.stories import DEVICES, never_ran, ran, stories, story

EXERCISE = (Path(__file__).parent / "exercise.js").read_text()
HOSTILE = "</script><script>document.title='broken'</script><b>%%script%%"

FULL = story(
    [
        ran(1, 0, 0, 0, 4),
        ran(2, 1, 1, 3, 6, name="embed"),
        ran(3, 0, 1, 4, 5, state="failed", error="ValueError: no <text>", name="embed"),
        ran(4, 0, 4, 5, None),
        never_ran(5, 1, 2),
        never_ran(6, 7, None),
    ],
    until=8,
    name="mine",
    rejected=3,
    incidents=(Incident(3, DEVICES[1], "it fell off the bus"), Incident(4, DEVICES[1], None)),
    forgotten=1_234,
    loads=(Load("model", DEVICES[0], 0, 1, None), Load("model", DEVICES[1], 0, 1, "OSError: gone")),
    memory=(MemorySample(1, 2**30, {"simulated:0": 2**31}), MemorySample(2, 2**30, {})),
)


class Words(HTMLParser):
    """The text of a page outside of scripts and styles, and its tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open[-1:] not in (["script"], ["style"]):
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " | ".join(self.words)


def rows(text: str, caption: str) -> list[list[str]]:
    """The body of a table."""
    body = re.search(rf"<caption>{caption}</caption>.*?<tbody>(.*?)</tbody>", text, re.S)
    assert body is not None, caption
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body[1])]


# ---- what it says


def test_its_numbers_are_in_the_markup() -> None:
    text = Words(page(FULL)).text
    assert "mine | 2023-11-14 22:13:20 UTC, 8.00 s on 2 devices, 2 slots" in text
    assert "jobs succeeded | 2 | 1 failed, 1 cancelled, 1 running, 1 queued, 3 refused" in text
    assert "Only the last 6 jobs: 1,234 before them are forgotten." in text
    assert "wait p50 | 1.00 s | p99 3.00 s" in text
    assert "run p50 | 3.00 s | p99 4.00 s" in text
    assert "busy | 68.8 % | idle 31.2 %" in text
    assert "lost | 18.8 % | idle while a job waited" in text


def test_its_tables() -> None:
    text = page(FULL)
    assert rows(text, "Devices") == [
        ["simulated:0", "simulated:0", "1", "3", "100.0 %", "0.0 %", "0.0 %"],
        ["simulated:1", "simulated:1", "1", "1", "37.5 %", "62.5 %", "37.5 %"],
    ]
    assert rows(text, "Functions")[0] == (
        ["detect", "4", "0", "0 µs", "1.00 s", "1.00 s", "4.00 s", "4.00 s", "4.00 s", "4.00 s"]
    )
    assert rows(text, "Slowest calls")[0] == ["detect #1", "simulated:0", "1", "0 µs", "0 µs", "4.00 s"]
    waits = rows(text, "Longest waits, by call")
    assert [row[0] for row in waits] == ["embed #3", "embed #2", "detect #4", "detect #1"]
    assert waits[2][5] == "runs"
    assert rows(text, "Failures") == [
        ["ValueError: no &lt;text&gt;", "embed", "1"],
        ["OSError: gone", "load model", "1"],
        ["out of service: it fell off the bus", "simulated:1", "1"],
    ]


def test_a_call_is_one_row_however_many_jobs_it_has() -> None:
    batch = [ran(number, 0, 0.1 * number, 4, 6, name="embed") for number in range(1, 21)]
    text = page(story([*batch, ran(21, 1, 0, 0, 1)], until=8))
    assert rows(text, "Slowest calls") == [
        ["embed #1", "simulated:0", "20", "4.00 s", "3.90 s", "2.00 s"],
        ["detect #21", "simulated:1", "1", "0 µs", "0 µs", "1.00 s"],
    ]
    assert [row[0] for row in rows(text, "Longest waits, by call")] == ["embed #1", "detect #21"]


def test_functions_and_tenants_beyond_the_first_twenty_are_one_row() -> None:
    jobs = [
        ran(number, 0, number, number, number + 1, name=f"function {number % 30}", tenant=f"tenant {number % 40}")
        for number in range(120)
    ]
    text = page(story(jobs, until=200))
    for caption, most, each in (("Functions", 30, 4), ("Tenants", 40, 3)):
        told = rows(text, caption)
        assert len(told) == 21
        assert told[0][1] == str(each)
        assert told[-1][:2] == ["other", str((most - 20) * each)]
        assert sum(int(row[1]) for row in told) == 120


def test_there_is_no_table_of_tenants_without_tenants() -> None:
    assert "Tenants" not in page(FULL)


def test_the_colours_of_functions_depend_on_their_names_alone() -> None:
    names = ["detect", "embed", "caption", "stuck"]
    found = []
    for order in (names, names[::-1]):
        told = document(story([ran(n, 0, n, n, n + 1, name=name) for n, name in enumerate(order)], until=9))
        found.append(dict(zip(told["names"], told["colours"], strict=True)))
    assert found[0] == found[1]
    assert len(set(found[0].values())) == 4


def test_a_run_without_jobs() -> None:
    text = page(story([], until=5))
    assert "no job ran" in text
    assert "<figure>" not in text
    assert "Failures" not in text
    assert rows(text, "Devices")[0][4] == "0.0 %"


@given(stories())
def test_any_story_has_a_page(told: Story) -> None:
    text = page(told)
    assert "%%" not in text.replace("%%script%%", "")
    assert len(rows(text, "Devices")) == len(told.devices)


# ---- what is in it for the script


def test_the_script_gets_everything() -> None:
    packed_text = re.search(r'id="packed">(.*?)</script>', page(FULL))
    assert packed_text is not None
    told = json.loads(zlib.decompress(base64.b64decode(packed_text[1]), wbits=-15))
    assert told == json.loads(json.dumps(document(FULL)))
    assert told["jobs"]["id"] == [1, 1, 1, 2, -1, 2]  # 1, 2, 3, 5, 4, 6: in order of submission
    assert told["jobs"]["slot"] == [0, 1, 0, -1, 0, -1]
    assert told["jobs"]["waited"] == [0, 2_000_000, 3_000_000, 1_000_000, 1_000_000, -1]
    assert told["jobs"]["ran"] == [4_000_000, 3_000_000, 1_000_000, -1, -1, -1]
    assert [told["names"][number] for number in told["jobs"]["name"]] == [job.name for job in FULL.jobs]
    assert [told["states"][number] for number in told["jobs"]["state"]] == [job.state for job in FULL.jobs]
    assert [told["errors"][number] for number in told["jobs"]["error"] if number >= 0] == ["ValueError: no <text>"]
    assert told["memory"]["devices"] == [[2**31, None], [None, None]]
    assert deltas([5, 5, 7]) == [5, 0, 2]


def test_ten_thousand_jobs_fit_into_a_mail() -> None:
    jobs = [ran(n, n % 2, n * 0.0123, n * 0.0123 + n % 7 * 0.001, n * 0.0123 + 0.02) for n in range(10_000)]
    assert len(packed(story(jobs, until=200))) < 200_000


# ---- histograms


def test_a_histogram_says_its_numbers() -> None:
    tags = Words(histogram("Waits", [0.001, 0.0011, 0.1], "waits"))
    assert "1.00 ms to 1.47 ms: 2" in tags.words
    assert "2 jobs" in tags.words
    [svg] = [attributes for tag, attributes in tags.tags if tag == "svg"]
    assert svg["aria-label"] == "Waits: 3 durations from 1.00 ms to 100 ms"
    assert [attributes["class"] for tag, attributes in tags.tags if tag == "rect"] == ["waits", "waits"]
    assert histogram("Waits", [], "waits") == ""


@pytest.mark.parametrize("seconds", [[0.0], [1e-9, 1e4], [3.0] * 5])
def test_a_histogram_of_anything(seconds: list[float]) -> None:
    tags = Words(histogram("Waits", seconds, "waits"))
    bars = [attributes for tag, attributes in tags.tags if tag == "rect"]
    assert len(bars) == len(set(seconds))
    for bar in bars:
        assert float(bar["height"] or 0) > 0
        assert 0 <= float(bar["x"] or -1) < 480


# ---- safe, and alone


def test_it_asks_for_nothing_from_anywhere() -> None:
    text = page(FULL)
    assert re.findall(r"https?://|//cdn|@import|url\(", text) == []
    words = Words(text)
    assert [attributes for tag, attributes in words.tags if "src" in attributes or "href" in attributes] == []
    [policy] = [attributes["content"] for _, attributes in words.tags if "http-equiv" in attributes]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def test_names_and_errors_are_text() -> None:
    hostile = [ran(1, 0, 0, 1, 2, name=HOSTILE, state="failed", error=HOSTILE)]
    text = page(story(hostile, until=3, name=HOSTILE, loads=(Load(HOSTILE, DEVICES[0], 0, 1, HOSTILE),)))
    assert HOSTILE not in text
    assert text.count("<script") == page(FULL).count("<script")
    assert HOSTILE in Words(text).text


@needs_browser
@pytest.mark.slow
def test_a_browser_draws_it(tmp_path: Path) -> None:
    """The script runs through, in both themes, and answers zooming, moving, pointing and keys."""
    path = tmp_path / "page.html"
    path.write_text(f"{page(FULL)}<script>{EXERCISE}</script>")
    dom = dom_of(path)
    assert 'data-ready="yes"' in dom
    told = re.search(r'<pre id="told">(.*?)</pre>', dom, re.S)
    assert told is not None, dom[-2000:]
    answers: dict[str, Any] = json.loads(told[1])
    assert answers["errors"] == []
    assert answers["trouble"] is True  # hidden
    assert answers["colours"] > 5  # that the lanes are painted in
    assert answers["zoomed"] == [2e6, 4e6]
    assert answers["moved"] == pytest.approx([2.4e6, 4.4e6])
    assert answers["all"] == [0, 8e6]
    assert answers["pointed"] == "embed #2simulated:1, slot 1: succeededwaited 2.00 s, ran 3.00 s" + (
        "began at 3.0000 s, the loop heard 0 µs later"
    )
    assert answers["legend"] == "detect|embed|failed|cancelled|loading a model|idle while a job waits"
    assert answers["themes"] == ["light", "dark"]


@needs_browser
@pytest.mark.slow
def test_a_browser_runs_nothing_that_came_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(story([ran(1, 0, 0, 1, 2, name=HOSTILE, error=HOSTILE)], until=3, name=HOSTILE)))
    dom = dom_of(path)
    assert 'data-ready="yes"' in dom
    assert "<title>broken" not in dom


async def test_names_that_are_no_text_do_not_keep_a_page_from_being_written(tmp_path: Path) -> None:
    """Half a character: what Python makes of a file name that is no UTF-8."""
    timeline = Timeline(name="\udcff")

    def fail(device: object) -> None:
        raise ValueError("can't read \udcff.png")

    async with Director("simulated:1", hooks=[timeline]) as director:
        with pytest.raises(ValueError, match="can't read"):
            await director.submit(fail, name="read \udcff")
    timeline.report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert rows(text, "Functions")[0][0] == "read \\udcff"
    timeline.save(tmp_path / "trace.json")
    assert "read \udcff" in {
        event["name"] for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    }


async def test_a_real_run_has_a_page(tmp_path: Path) -> None:
    timeline = Timeline(name="a real run")
    async with Director("simulated:2", hooks=[timeline]) as director:
        model = Model(lambda device: device, name="detector")
        async for _ in director.map(lambda device, _: device.work(0.001), range(20), model=model):
            pass
    timeline.report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "jobs succeeded | 20 |" in Words(text).text
    assert rows(text, "Functions")[0][:3] == ["&lt;lambda&gt;", "20", "0"]
