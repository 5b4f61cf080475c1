"""The terminal for what rich draws. Whose text it draws is shown, not obeyed. The only maker of rich's consoles."""

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
    """Writes the escape sequences that rich makes, and none that stand in the text; nor is text read as markup.

    Args:
        stderr: Draw there rather than on the standard output.
        options: For tests, as `rich.console.Console` has them.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What `renderable` looks like, in segments."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


def live(console: EscapingConsole, **options: Any) -> Live:
    """A picture that stays in place. What Python code prints meanwhile is left alone or drawn above, by rich."""
    return Live(console=console, **options)
