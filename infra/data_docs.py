"""Make the pages of Great Expectations readable without a network.

They link to style sheets, scripts and pictures on other machines; those are taken out and one
small style sheet is put in, so that opening a page tells nobody about it. Their first page is
drawn by such a script; a plain one takes its place.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
main { max-width: 1080px; margin: 28px auto; padding: 0 20px; }
""".strip()
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
    """Describe one table's newest validation.

    Attributes:
        table: The table's name.
        row: What one row of it is.
        num_rules: Rules that were evaluated.
        num_broken: Critical rules that do not hold.
        num_warned: Other rules that do not hold.
        checked: When, in UTC.
        page: The table's page, relative to the index.
    """

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


def make_self_contained(folder: Path) -> None:
    """Rewrite every page of a folder so that it refers to nothing outside the folder.

    Args:
        folder: Where Great Expectations has written its pages.
    """
    for page in folder.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for pattern, replacement in _EDITS:
            text = re.sub(pattern, replacement, text, flags=re.DOTALL | re.IGNORECASE)
        page.write_text(text, encoding="utf-8")


def write_index(folder: Path, rows: Sequence[IndexRow]) -> Path:
    """Write the first page: one line per table, with a link to its page.

    Args:
        folder: Where the pages are.
        rows: One entry per table, in the order to show.
    """
    lines = "".join(_line(row) for row in rows)
    broken = sum(row.num_broken for row in rows)
    warned = sum(row.num_warned for row in rows)
    page = folder / "index.html"
    page.write_text(
        f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Data docs</title>"
        f"<style>{_STYLE}</style></head><body><nav class='navbar'>{_BRAND}</nav><main>"
        f"<p>{len(rows)} tables, {sum(row.num_rules for row in rows)} expectations: "
        f"{broken} critical and {warned} other ones do not hold.</p>"
        "<table class='index'><thead><tr><th>Table</th><th>One row is</th><th>Status</th>"
        "<th class='number'>Expectations</th><th class='number'>Critical, not met</th>"
        "<th class='number'>Warnings</th><th>Checked (UTC)</th></tr></thead>"
        f"<tbody>{lines}</tbody></table></main></body></html>",
        encoding="utf-8",
    )
    return page


def _line(row: IndexRow) -> str:
    name, what, link = (html.escape(text) for text in (row.table, row.row, row.page))
    return (
        f"<tr><td><a href='{link}'>{name}</a></td><td>{what}</td>"
        f"<td class='{row.status}'>{row.status}</td><td class='number'>{row.num_rules}</td>"
        f"<td class='number'>{row.num_broken}</td><td class='number'>{row.num_warned}</td>"
        f"<td>{row.checked}</td></tr>"
    )
