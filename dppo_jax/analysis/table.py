"""The points of a figure: a table of named columns, kept as CSV.

What is drawn and judged is read back from the file, so the picture holds
nothing that the file does not.
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import io
import pathlib

import numpy as np

from dppo_jax.runtime.storage import files

Row = Mapping[str, str | int | float]
MAX_BYTES = 64 * 2**20


class Points:
  """Rows of text; numbers are read when they are asked for."""

  def __init__(self, rows: Sequence[Mapping[str, str]]):
    """Keeps `rows`, all of the same columns."""
    self.rows = list(rows)

  def where(self, **equal: str | int) -> 'Points':
    """The rows whose columns have these values."""
    wanted = {column: str(value) for column, value in equal.items()}
    return Points(
      [
        row
        for row in self.rows
        if all(row[column] == value for column, value in wanted.items())
      ]
    )

  def values(self, column: str) -> list[str]:
    """The distinct values of a column, in the order of the file."""
    return list(dict.fromkeys(row[column] for row in self.rows))

  def numbers(self, column: str) -> np.ndarray:
    """A column as f64 [n]; NaN where it is empty."""
    return np.array([float(row[column] or 'nan') for row in self.rows])

  def by_seed(self, column: str, **equal: str | int) -> np.ndarray:
    """Mean of a column for each seed: f64 [seeds]; empty cells are left out.

    Args:
      column: of numbers.
      **equal: as in `where`.
    """
    chosen = self.where(**equal)
    means = []
    for seed in chosen.values('seed'):
      values = chosen.where(seed=seed).numbers(column)
      values = values[~np.isnan(values)]
      if values.size:
        means.append(values.mean())
    return np.array(means)


def write(path: pathlib.Path, rows: Iterable[Row]) -> None:
  """Writes rows as CSV, numbers to six digits; the file is old or new.

  Args:
    path: of the file.
    rows: with the same columns each.

  Raises:
    ValueError: there are none, or their columns differ.
  """
  rows = list(rows)
  if not rows:
    raise ValueError(
      f'{path.name}: no run left a point; see the errors above, or log.txt in'
      ' the folder of a run.'
    )
  text = io.StringIO()
  writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  for row in rows:
    writer.writerow({name: _text(value) for name, value in row.items()})
  files.write_atomically(path, text.getvalue())


def read(path: pathlib.Path) -> Points:
  """Reads what `write` wrote.

  Raises:
    ValueError: there is no such file, or it is no table.
  """
  try:
    if path.stat().st_size > MAX_BYTES:
      raise ValueError(f'{path}: larger than {MAX_BYTES >> 20} MiB.')
    with path.open(newline='') as file:
      rows = list(csv.DictReader(file, strict=True, restval=None))
  except (OSError, csv.Error, UnicodeDecodeError) as error:
    raise ValueError(f'{path}: cannot be read ({error}).') from error
  for number, row in enumerate(rows, 2):
    if None in row or None in row.values():
      raise ValueError(f'{path}: line {number} has not one cell a column.')
  return Points(rows)


def _text(value: str | int | float) -> str:
  if isinstance(value, float | np.floating):
    return '' if np.isnan(value) else f'{value:.6g}'
  return str(value)
