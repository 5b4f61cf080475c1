"""What the site needs beside its settings: navigation from docs/index.md, and a check of every link that was built.

MkDocs calls the functions whose names begin with `on_`. It checks the links of Markdown by itself; the check here reads
the HTML, where the links of docstrings, menus and raw HTML are too. What it finds is logged as a warning, which ends a
strict build.
"""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig

log = logging.getLogger("mkdocs.hooks.director")


def on_config(config: MkDocsConfig) -> None:
    """Take the navigation from the index, which has every page once, below one heading for each kind."""
    config.nav = list(navigation(Path(config.docs_dir, "index.md").read_text()))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave out the comments of a page, which hold what the tests need; not within code."""
    return re.sub(r"(^```.*?^```$)|<!--.*?-->", lambda found: found[1] or "", markdown, flags=re.S | re.M)


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of every link, image, script and style sheet that leads nowhere or to another host's files."""
    for complaint in complaints(Path(config.site_dir)):
        log.warning(complaint)


def navigation(index: str) -> Iterator[dict[str, Any]]:
    """The sections of the index, each with its pages in order."""
    yield {"Home": "index.md"}
    seen = {"index.md"}
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", index, re.M | re.S):
        targets = re.findall(r"\]\((?!\.\./)([\w./-]+\.md)[^)]*\)", body)
        pages = [page for page in dict.fromkeys(targets) if page not in seen]
        seen.update(pages)
        if pages:
            yield {title: pages}


class Links(HTMLParser):
    """The ids of a page, what it links to, and what a browser loads for it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        if "href" in given:
            (self.loaded if tag == "link" and given.get("rel") != "canonical" else self.targets).append(given["href"])
        if "src" in given:
            self.loaded.append(given["src"])


def complaints(site: Path) -> Iterator[str]:
    """One line for each link of the built site that is broken, or that a browser would load from another host."""
    pages = {page.resolve(): Links(page) for page in sorted(site.rglob("*.html")) if page.name != "404.html"}
    for page, links in pages.items():
        name = page.relative_to(site.resolve())
        yield from (f"{name} loads {url}" for url in links.loaded if urlsplit(url).netloc)
        for url in links.targets + links.loaded:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            goal = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if goal.is_dir():
                goal /= "index.html"
            if not goal.exists():
                yield f"{name} links to {url}, which does not exist"
            elif goal in pages and parts.fragment and unquote(parts.fragment) not in pages[goal].ids:
                yield f"{name} links to {url}, and that page has no such heading"
