"""The documentation site: what docs/site/hooks.py makes of the pages, and what the pages of the API name.

The build itself is the session `docs`, which `.ci/run` calls: there a warning is an error.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import director

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
API = sorted((DOCS / "reference" / "api").glob("*.md"))
MODULES = ["asgi", "dashboard", "errors", "events", "fastapi", "guard", "hooks", "logs", "otel", "prometheus", "ray"]


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = spec_from_file_location("site_hooks", DOCS / "site" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented() -> list[str]:
    return re.findall(r"^::: ([\w.]+)$", "\n".join(page.read_text() for page in API), re.M)


def test_every_public_name_is_rendered_from_its_docstring_once() -> None:
    errors = {name for name in vars(director.errors) if name in director.__all__}
    names = [f"director.{name}" for name in director.__all__ if name not in errors]
    modules = [f"director.{name}" for name in [*MODULES, "testing", "timeline"]]
    assert sorted(documented()) == sorted(names + modules)


def test_every_module_of_the_api_can_be_imported() -> None:
    heavy = {"director.fastapi", "director.ray", "director.otel", "director.prometheus"}
    names = [name for name in documented() if name.islower() and name not in heavy]
    for name in names:
        module, _, member = name.rpartition(".")
        assert hasattr(import_module(module), member) or import_module(name)


def test_the_navigation_has_every_page_once(hooks: Any) -> None:
    sections = list(hooks.navigation((DOCS / "index.md").read_text()))
    listed = [pages for section in sections for pages in section.values()]
    pages = [page for pages in listed for page in ([pages] if isinstance(pages, str) else pages)]
    assert sorted(pages) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_comments_of_a_page_are_left_out_and_its_code_is_not(hooks: Any) -> None:
    code = "```html\n<!-- stays -->\n```"
    assert hooks.on_page_markdown(f"a <!-- hidden\n```python\nx\n```\n--> b\n{code}\n") == f"a  b\n{code}\n"


def test_a_link_that_leads_nowhere_is_seen(hooks: Any, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="#top"></a><a href="b.html#there"></a><a href="https://example.org/"></a>'
        '<a href="#gone"></a><a href="b.html#gone"></a><a href="c.html"></a><img src="d.png">'
        '<script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    assert list(hooks.complaints(tmp_path)) == [
        "a.html loads https://example.org/x.js",
        "a.html links to #gone, and that page has no such heading",
        "a.html links to b.html#gone, and that page has no such heading",
        "a.html links to c.html, which does not exist",
        "a.html links to d.png, which does not exist",
    ]


LONG = {"design.md", "changelog.md"}  # the design, and a list that grows with each version


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_no_page_is_too_long_to_be_read(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|<!--.*?-->|^\|.*?$", "", page.read_text(), flags=re.S | re.M)
    assert page.name in LONG or len(text.split()) <= 1_500
