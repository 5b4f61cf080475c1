"""Numbers and texts as people read them."""

from __future__ import annotations

import unicodedata

# Controls of terminals; invisible format characters, such as those that turn the direction of a text; halves of
# characters, of a file name that is no UTF-8; separators of lines and paragraphs.
_NOT_SHOWN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def plain(text: str) -> str:
    r"""One line of any origin, for a terminal: ``"\x1b[2J"`` is shown as those characters, not obeyed."""
    if text.isprintable():
        return text
    return "".join(_visible(each) if unicodedata.category(each) in _NOT_SHOWN else each for each in text)


def _visible(character: str) -> str:
    return character.encode("unicode_escape").decode()


def count(number: int) -> str:
    """``1797`` as ``"1,797"``."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """``1 item``, ``1,797 items``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """``0.974`` as ``"97.4 %"``."""
    return f"{share * 100:.1f} %"


def rate(per_second: float) -> str:
    """Three digits and the unit: ``"560/s"``, ``"3.14/s"``, ``"0.021/s"``."""
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.3g}/s"


def duration(seconds: float) -> str:
    """Three digits and the unit: ``"850 µs"``, ``"3.42 ms"``, ``"1.20 s"``, ``"2 min 05 s"``, ``"1 h 02 min"``."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def about(seconds: float) -> str:
    """Whole seconds, for times that change while one looks: ``"4 s"``, ``"2 min 05 s"``."""
    return f"{round(seconds)} s" if seconds < 59.5 else duration(max(60.0, seconds))


def _three_digits(number: float) -> str:
    if number < 9.995:
        return f"{number:.2f}"
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"
