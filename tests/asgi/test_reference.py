"""The page about web services has every name, signature and default."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director import asgi, fastapi

if TYPE_CHECKING:
    from types import ModuleType

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "web.md").read_text()


def told(heading: str) -> dict[str, str]:
    """The first column of the table below a heading: names, with what stands in brackets."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)(\(.*?\))?` \|", section, re.M))


@pytest.mark.parametrize(("heading", "module"), [("director.asgi", asgi), ("director.fastapi", fastapi)])
def test_every_name_is_told(heading: str, module: ModuleType) -> None:
    assert set(told(heading)) == set(module.__all__)


@pytest.mark.parametrize(
    ("heading", "made"),
    [("director.asgi", getattr(asgi, name)) for name, signature in told("director.asgi").items() if signature]
    + [("director.fastapi", fastapi.install)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_signatures_are_those_of_the_code(heading: str, made: Any) -> None:
    parameters = inspect.signature(made).parameters.values()
    bare = str(inspect.Signature([each.replace(annotation=inspect.Parameter.empty) for each in parameters]))
    assert told(heading)[made.__name__] == bare.replace("'", '"').replace("<factory>", "{}")
