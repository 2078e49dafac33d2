"""Figures as text: times, bytes, rates and shares, and the paragraphs that they stand in."""

import re
import textwrap

__all__ = ["bytes_text", "paragraphs", "rate_text", "round_text", "seconds_text", "share_text"]


def seconds_text(seconds: float) -> str:
    """Return a duration in the unit that suits it, with three digits.

    >>> seconds_text(1.234e-7), seconds_text(2.5e-5), seconds_text(0.0123), seconds_text(1.5), seconds_text(75)
    ('0.123 µs', '25.0 µs', '12.3 ms', '1.50 s', '75.0 s')
    """
    unit, size = next(((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if seconds >= size), ("µs", 1e-6))
    scaled = seconds / size
    decimals = 3 if scaled < 1 else 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:,.{decimals}f} {unit}"


def bytes_text(size: float) -> str:
    """Return bytes as a number."""
    return f"{size:,.0f}"


def rate_text(rate: float) -> str:
    """Return operations a second as a number."""
    return f"{rate:,.0f}"


def round_text(number: float) -> str:
    """Return a number by two digits, for a sentence that concludes from it.

    >>> round_text(123_456), round_text(9_870), round_text(1.234)
    ('120,000', '9,900', '1.2')
    """
    return f"{float(f'{number:.2g}'):,.{1 if number < 10 else 0}f}"


def share_text(share: float) -> str:
    """Return a share in percent.

    >>> share_text(0.345)
    '34 %'
    """
    return f"{share:.0%}".replace("%", " %")


def paragraphs(template: str, **figures: object) -> str:
    """Return text with its figures, its paragraphs and points broken anew into lines."""
    text = []
    for block in re.split(r"\n(?=\n|- )", template.format_map(figures)):
        indent = "  " if block.startswith("- ") else ""
        # A block that begins with a line's end follows an empty line.
        text += [""] * block.startswith("\n")
        text.append(textwrap.fill(" ".join(block.split()), 120, subsequent_indent=indent, break_on_hyphens=False))
    return "\n".join(text) + "\n"
