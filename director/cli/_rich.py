"""The console for rich, which escapes control characters of texts. The only place that makes rich consoles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.segment import Segment

from director.cli._console import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import ConsoleOptions, RenderableType


class EscapingConsole(Console):
    """Writes the escape sequences of rich, and escapes those in texts; texts are not parsed as markup.

    Args:
        stderr: Draw there rather than on the standard output.
        options: Options of `rich.console.Console`, for tests.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`, escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


def live(console: EscapingConsole, **options: Any) -> Live:
    """A view that is redrawn in place. Output of Python code meanwhile is not captured, or printed above it by rich."""
    return Live(console=console, **options)
