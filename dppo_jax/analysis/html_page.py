"""Tables as text, and as a self-contained HTML page.

The page has no scripts; its content security policy allows only its own style
and embedded images. All text is escaped.
"""

import base64
from collections.abc import Sequence
import html
import pathlib
from typing import NamedTuple

from dppo_jax.analysis.ledger import page as page_lib
from dppo_jax.runtime.storage import files

_STYLE = """
:root { color-scheme: light dark; }
body {
  margin: 0 auto; padding: 0 20px 40px; max-width: 1200px;
  font: 15px/1.5 system-ui, sans-serif;
}
h1 { font-size: 20px; margin: 20px 0 4px; }
h2 { font-size: 16px; margin: 26px 0 6px; }
h1, h2, p, td, th, pre { overflow-wrap: anywhere; unicode-bidi: isolate; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
td, th {
  border: 1px solid #9ca3af; padding: 3px 9px; text-align: right;
  overflow-wrap: normal;
}
td + td, th + th { white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
pre {
  font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; margin: 6px 0;
}
/* A picture is not squeezed until its text is too small: it scrolls. */
img { width: 100%; min-width: 860px; max-width: 1430px; height: auto;
  background: #ffffff; }
@media (max-width: 700px) { body { padding: 0 12px 30px; } }
"""
# Characters of one text; a page is for reading.
MAX_TEXT = 20_000
MAX_LABEL = 60


class Table(NamedTuple):
  """Table with a header, under a title.

  Attributes:
    title: of the table.
    heads: of the columns; the first column has the row names.
    rows: of as many cells.
    note: a sentence below; '' for none.
  """

  title: str
  heads: Sequence[str]
  rows: Sequence[Sequence[str]]
  note: str = ''


class Text(NamedTuple):
  """Preformatted lines, under a title."""

  title: str
  text: str


class Picture(NamedTuple):
  """PNG under a title, which is also its alternative text."""

  title: str
  path: pathlib.Path


Part = Table | Text | Picture


def to_text(part: Table | Text) -> str:
  """Text of a part for a terminal, with control characters escaped."""
  if isinstance(part, Table):
    return _aligned(part)
  lines = [f'  {plain(line)}' for line in part.text.split('\n')]
  return '\n'.join([part.title, *lines])


def _aligned(table: Table) -> str:
  cells = [[plain(c) for c in row] for row in (table.heads, *table.rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines = [table.title]
  for row in cells:
    first, *others = zip(row, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]
    lines.append('  ' + '  '.join(padded).rstrip())
  if table.note:
    lines.append(f'  {table.note}')
  return '\n'.join(lines)


def write(path: pathlib.Path, title: str, parts: Sequence[Part]) -> None:
  """Writes the page atomically.

  Args:
    path: of the file.
    title: of the page.
    parts: below it.
  """
  policy = (
    f"default-src 'none'; style-src '{page_lib.source_hash(_STYLE)}';"
    " img-src data:; base-uri 'none'; form-action 'none'"
  )
  body = '\n'.join(_part(part) for part in parts)
  page = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="referrer" content="no-referrer">\n'
    f'<title>{_escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n'
    f'<body>\n<h1>{_escaped(title)}</h1>\n{body}\n</body>\n</html>\n'
  )
  # In ASCII, whatever encoding the machine prefers.
  text = page.encode('ascii', 'xmlcharrefreplace').decode()
  files.write_atomically(path, text)


def _part(part: Part) -> str:
  head = f'<h2>{_escaped(part.title)}</h2>\n'
  if isinstance(part, Text):
    return f'{head}<pre>{_escaped(part.text)}</pre>'
  if isinstance(part, Picture):
    data = base64.b64encode(part.path.read_bytes()).decode()
    alt = _escaped(part.title)
    return (
      f'{head}<div class="wide"><img alt="{alt}"'
      f' src="data:image/png;base64,{data}"></div>'
    )
  rows = [_row('th', part.heads), *(_row('td', row) for row in part.rows)]
  table = '\n'.join(rows)
  note = f'\n<p>{_escaped(part.note)}</p>' if part.note else ''
  return f'{head}<div class="wide"><table>\n{table}\n</table></div>{note}'


def _row(tag: str, cells: Sequence[str]) -> str:
  listed = ''.join(f'<{tag}>{_escaped(cell)}</{tag}>' for cell in cells)
  return f'<tr>{listed}</tr>'


def _escaped(text: str) -> str:
  cut = text if len(text) <= MAX_TEXT else f'{text[:MAX_TEXT]}…'
  return html.escape(cut)


def label(text: str) -> str:
  """Text for a plot, with dollars escaped: they would begin mathematics."""
  shown = plain(text).replace('$', r'\$')
  return shown if len(shown) <= MAX_LABEL else f'{shown[: MAX_LABEL - 1]}…'


def plain(text: str) -> str:
  """Text on one line, without control characters."""
  return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)
