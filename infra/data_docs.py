"""Make the pages of Great Expectations readable without a network.

They link to style sheets, scripts and pictures on other machines; those are taken out and one
small style sheet is put in, so that opening a page tells nobody about it. Their first page is
drawn by such a script; a plain one takes its place.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.accepted_days import AcceptedDay

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; color: #1d2733; margin: 0;
  background: #f6f7f9; }
a { color: #1f5fbf; text-decoration: none; } a:hover { text-decoration: underline; }
nav.navbar { background: #fff; border-bottom: 1px solid #dde2e8; padding: 14px 28px;
  height: auto !important; }
nav.navbar nav { display: flex; gap: 24px; align-items: center; }
.brand { font-weight: 650; font-size: 18px; color: #1d2733; }
.breadcrumb { display: flex; list-style: none; gap: 8px; margin: 0; padding: 0; color: #66717e; }
.breadcrumb li + li::before { content: "/"; padding-right: 8px; color: #a8b1bb; }
.container-fluid > .row { display: flex; gap: 28px; align-items: flex-start; }
.container-fluid.pt-4 { padding: 24px 28px; }
.col-lg-2 { flex: 0 0 250px; position: sticky; top: 16px; }
.col-lg-10 { flex: 1 1 auto; min-width: 0; }
.ge-section { background: #fff; border: 1px solid #dde2e8; border-radius: 8px;
  padding: 16px 20px; margin-bottom: 18px; }
.ge-section > .row { display: block; }
.alert { border-bottom: 1px solid #e8ecf0; padding-bottom: 8px; margin-bottom: 8px; }
.card { background: #fff; border: 1px solid #dde2e8; border-radius: 8px; }
.card-header { padding: 8px 14px; border-bottom: 1px solid #e8ecf0; }
.ge-section .card { border: 0; }
.ge-navigation-sidebar-container { max-height: none !important; padding: 6px 0; border: 0; }
.ge-navigation-sidebar-content { list-style: none; margin: 0; padding: 0 14px;
  max-height: none !important; }
.ge-navigation-sidebar-content li { padding: 2px 0; font-size: 13px; }
h4, h5, h6 { margin: 0 0 4px; font-size: 16px; } .lead { color: #66717e; margin: 0 0 16px; }
table { width: 100%; border-collapse: collapse; background: #fff; }
th, td { text-align: left; vertical-align: top; padding: 7px 10px;
  border-bottom: 1px solid #e8ecf0; }
thead[hidden] { display: none; } td:first-child { width: 1%; white-space: nowrap; }
.index td:first-child { width: auto; } .index { border: 1px solid #dde2e8; border-radius: 8px; }
.index th { background: #eef1f5; } .number { text-align: right; }
.badge { display: inline-block; padding: 1px 7px; border-radius: 4px; background: #eef1f5;
  font-size: 13px; }
.fa-check-circle::before { content: "\\2713"; } .fa-times::before { content: "\\2717"; }
.fa-exclamation-triangle::before { content: "!"; }
i.fas { font-style: normal; font-weight: 700; }
.text-success, .passed { color: #1a7f45; } .text-danger, .failed { color: #c02b30; }
.text-warning, .warned { color: #a86400; }
.passed, .failed, .warned { font-weight: 600; }
.collapse { display: block; } [data-toggle="collapse"], footer, .card.mb-3, #ge-cta-footer {
  display: none; }
p.run { margin: 0; padding: 8px 28px; background: #fff; border-bottom: 1px solid #dde2e8; }
code { font: 13px ui-monospace, monospace; } .id code { font-size: 11px; }
details { margin: 10px 0; } summary { cursor: pointer; padding: 4px 0; }
h4 { margin: 26px 0 8px; }
main { max-width: 1280px; margin: 28px auto; padding: 0 20px; }
""".strip()
_COLUMNS = (
    *("Table", "One row is", "Status", "Expectations"),
    *("Critical, not met", "Warnings", "Checked (UTC)"),
)
_BREACHES = ("num_broken", "num_warned")
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BRAND = '<span class="brand">ranklake data docs</span>'
# (what is taken out, what takes its place)
_EDITS = (
    (r"<script\b[^>]*>.*?</script>", ""),
    (r"<link\b[^>]*>", ""),
    (r"<style\b[^>]*>.*?</style>", ""),
    (r"<footer\b.*?</footer>", ""),
    (r"<img\b[^>]*>", _BRAND),
    (r'\s(?:href|src)="https?://[^"]*"', ""),
    (r"</head>", lambda _: f"<style>{_STYLE}</style></head>"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRow:
    """Describe one validation of one table.

    Attributes:
        run: Dagster's id of the run that asked for it.
        table: The table's name.
        row: What one row of it is.
        num_rules: Rules that were evaluated.
        num_broken: Critical rules that do not hold.
        num_warned: Other rules that do not hold.
        checked: When, in UTC.
        page: The table's page, relative to the index.
    """

    run: str
    table: str
    row: str
    num_rules: int
    num_broken: int
    num_warned: int
    checked: str
    page: str

    @property
    def status(self) -> str:
        """Return failed, warned or passed."""
        return "failed" if self.num_broken else "warned" if self.num_warned else "passed"


def make_self_contained(pages: Iterable[Path]) -> None:
    """Rewrite pages so that they refer to nothing outside their folder.

    Args:
        pages: What Great Expectations has written.
    """
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for pattern, replacement in _EDITS:
            text = re.sub(pattern, replacement, text, flags=re.DOTALL | re.IGNORECASE)
        page.write_text(text, encoding="utf-8")


def write_index(
    folder: Path,
    rows: Sequence[IndexRow],
    *,
    accepted: Sequence[AcceptedDay] = (),
    ui: str | None = None,
) -> Path:
    """Write the first page: each table's newest validation, then those of each run.

    Args:
        folder: Where the pages are.
        rows: Validations in the order of tables, newest first within a table.
        accepted: Days that are compared with no other.
        ui: Address of Dagster's web UI, which runs are linked to; None if it is not known.
    """
    newest = list({row.table: row for row in reversed(rows)}.values())[::-1]
    runs: dict[str, list[IndexRow]] = {}
    for row in sorted(rows, key=lambda row: row.checked, reverse=True):
        runs.setdefault(row.run, []).append(row)
    order = [row.table for row in rows]
    parts = [
        _summary(newest),
        _table([*_COLUMNS, "Run"], [_cells(row, run=_run(row.run, ui, shown=8)) for row in newest]),
        _accepted(accepted),
        "<h4>Runs, newest first</h4>",
    ]
    for run, found in runs.items():
        found.sort(key=lambda row: order.index(row.table))
        parts.append(f"<details><summary>Run {_run(run, ui)}: {_status_of(found)}</summary>")
        parts.append(_table(_COLUMNS, [_cells(row) for row in found]) + "</details>")
    page = folder / "index.html"
    page.write_text(
        f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Data docs</title>"
        f"<style>{_STYLE}</style></head><body><nav class='navbar'>{_BRAND}</nav><main>"
        f"{''.join(parts)}</main></body></html>",
        encoding="utf-8",
    )
    return page


def name_run(page: Path, *, run: str, index: str, ui: str | None = None) -> None:
    """Write at the head of a validation's page which run it belongs to.

    Args:
        page: The page.
        run: Dagster's id of the run.
        index: The first page, relative to this one.
        ui: Address of Dagster's web UI, or None.
    """
    text = page.read_text(encoding="utf-8")
    line = f"<p class='run'><a href='{index}'>All tables</a> &middot; run {_run(run, ui)}</p>"
    text = re.sub(r"<p class='run'>.*?</p>", "", text)
    page.write_text(re.sub(r"(<body[^>]*>)", rf"\1{line}", text, count=1), encoding="utf-8")


def _summary(rows: Sequence[IndexRow]) -> str:
    broken, warned = (sum(getattr(row, name) for row in rows) for name in _BREACHES)
    return (
        f"<p>{len(rows)} tables, {sum(row.num_rules for row in rows)} expectations: "
        f"{broken} critical and {warned} other ones do not hold.</p>"
    )


def _status_of(rows: Sequence[IndexRow]) -> str:
    states = [row.status for row in rows]
    status = next(name for name in ("failed", "warned", "passed") if name in states)
    return f"<span class='{status}'>{status}</span>, {len(rows)} tables, {rows[0].checked} UTC"


def _accepted(days: Sequence[AcceptedDay]) -> str:
    if not days:
        return ""
    cells = [[f"<td>{html.escape(text)}</td>" for text in (d.day, d.why, d.when)] for d in days]
    return "<h4>Accepted days</h4>" + _table(("Day", "Why", "Accepted (UTC)"), cells)


def _run(run: str, ui: str | None, *, shown: int | None = None) -> str:
    """Return a run's id, linked where the UI is known; its first characters if so many do."""
    name = html.escape(run)
    if not _RUN_ID.fullmatch(run):
        return f"<code>{name}</code>"
    text = f"<code title='{name}'>{name[:shown]}</code>"
    return text if ui is None else f"<a href='{html.escape(ui.rstrip('/'))}/runs/{name}'>{text}</a>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{name}</th>" for name in columns)
    lines = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f"<table class='index'><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _cells(row: IndexRow, *, run: str | None = None) -> list[str]:
    name, what, link = (html.escape(text) for text in (row.table, row.row, row.page))
    numbers = (row.num_rules, row.num_broken, row.num_warned)
    return [
        f"<td><a href='{link}'>{name}</a></td><td>{what}</td>",
        f"<td class='{row.status}'>{row.status}</td>",
        *(f"<td class='number'>{number}</td>" for number in numbers),
        f"<td>{row.checked}</td>",
        "" if run is None else f"<td class='id'>{run}</td>",
    ]
