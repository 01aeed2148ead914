"""Points of a figure: a table of named columns, stored as CSV.

Plots and verdicts use the points read back from the file, so they contain
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
  """Rows of text; numbers are parsed on access."""

  def __init__(self, rows: Sequence[Mapping[str, str]]):
    """Stores `rows`, which all have the same columns."""
    self.rows = list(rows)

  def where(self, **equal: str | int) -> 'Points':
    """Points whose columns have these values."""
    wanted = {column: str(value) for column, value in equal.items()}
    return Points(
      [
        row
        for row in self.rows
        if all(row[column] == value for column, value in wanted.items())
      ]
    )

  def values(self, column: str) -> list[str]:
    """Distinct values of a column, in the order of the file."""
    return list(dict.fromkeys(row[column] for row in self.rows))

  def numbers(self, column: str) -> np.ndarray:
    """Column as f64 [n]; NaN for empty cells."""
    return np.array([float(row[column] or 'nan') for row in self.rows])

  def by_seed(self, column: str, **equal: str | int) -> np.ndarray:
    """Mean of a column per seed, f64 [seeds], over non-empty cells.

    Args:
      column: of numbers.
      **equal: see `where`.
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
  """Writes rows as CSV, numbers to six digits, atomically.

  Args:
    path: of the file.
    rows: with the same columns each.

  Raises:
    ValueError: there are none, or their columns differ.
  """
  rows = list(rows)
  if not rows:
    raise ValueError(
      f'{path.name}: no run has points; see the errors above, or log.txt in the'
      ' folder of a run.'
    )
  text = io.StringIO()
  writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  for row in rows:
    writer.writerow({name: _text(value) for name, value in row.items()})
  files.write_atomically(path, text.getvalue())


def read(path: pathlib.Path) -> Points:
  """Points of a file written by `write`.

  Raises:
    ValueError: no such file, or it is no table.
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
      raise ValueError(f'{path}: line {number} has not one cell per column.')
  return Points(rows)


def _text(value: str | int | float) -> str:
  if isinstance(value, float | np.floating):
    return '' if np.isnan(value) else f'{value:.6g}'
  return str(value)
