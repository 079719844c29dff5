"""Render the report: one self-contained HTML page of cards, tables and inline SVG figures."""

import math
from dataclasses import dataclass
from pathlib import Path

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Show one headline figure."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Show rows under a header; all cells are text. `number_columns` are right-aligned."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    number_columns: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Check that every row is as wide as the header.

        Raises:
            ValueError: If a row is not.
        """
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"a row of table {self.caption!r} is not as wide as its header")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Show one inline SVG."""

    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Group a text, tables and figures under a heading."""

    title: str
    text: str = ""
    grids: tuple[Grid, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Hold everything the page shows."""

    title: str
    subtitle: str
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    footer: str = ""


def number(value: float | int | None, digits: int = 4) -> str:
    """Write a figure for a table: thousands separated, missing as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}"


def render(page: Page) -> str:
    """Return the page as HTML that needs no other file and no network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html.j2").render(page=page)
