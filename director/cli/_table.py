"""Plain text tables: the same on a terminal, in a log and in a bug report."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from director.cli import _words

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines of a table; the first `left` columns are aligned left, the rest right.

    What terminals would obey is shown instead: cells hold names and messages that anybody may have chosen.
    """
    lines = [[_words.plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(head))]
    return [_line(line, widths, left) for line in lines]


def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    room = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
    cells = [
        cell + space if column < left else space + cell
        for column, (cell, space) in enumerate(zip(row, room, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _width(text: str) -> int:
    """How many columns of a terminal it takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF") for each in text)
