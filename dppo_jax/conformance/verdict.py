"""Report of a comparison with the authors' code, as tables and as JSON."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from dppo_jax.conformance import authors

MARGIN = 1e-6  # Of a threshold: either decision is right.
LOSS_BAR = 1e-5
GRADIENT_BAR = 1e-4
VALUE_BAR = 1e-5

_SHOWN = 50  # Lines of a list.


@dataclasses.dataclass(kw_only=True)
class Tally:
  """Counts and errors of one mode over all files.

  Attributes:
    masks: decisions compared, at completion tokens with A != 0.
    zero_advantage: decisions compared at A = 0, by the authors' convention.
    differ: decisions that differ.
    explained: of these, explained by a near threshold or f32.
    losses: number compared.
    loss_error: the worst, relative.
    gradients: number compared.
    gradient_error: the worst norm of the difference over the norm of theirs.
    gradient_max_error: largest difference over the largest of theirs.
    rounded: losses and gradients above tolerance by less than f32 resolves.
    unexplained: unexplained differences of any kind.
  """

  masks: int = 0
  zero_advantage: int = 0
  differ: int = 0
  explained: int = 0
  losses: int = 0
  loss_error: float = 0.0
  gradients: int = 0
  gradient_error: float = 0.0
  gradient_max_error: float = 0.0
  rounded: int = 0
  unexplained: int = 0


@dataclasses.dataclass(kw_only=True)
class Agreement:
  """Agreement of an array that we also compute, over all files.

  Attributes:
    values: number compared.
    error: the largest difference, nats or probability.
    relative_error: the largest difference over max(1, magnitude).
  """

  values: int = 0
  error: float = 0.0
  relative_error: float = 0.0


@dataclasses.dataclass(kw_only=True)
class Report:
  """Report of a comparison.

  Attributes:
    files: names, in order.
    tallies: by (implementation, mode), in the order of the tables.
    agreements: by array.
    explained: differences with their reasons, one line each.
    absent: modes not compared, one line per file.
    unexplained: differences without a reason, one line each.
  """

  files: list[str]
  tallies: dict[tuple[str, str], Tally]
  agreements: dict[str, Agreement]
  explained: list[str]
  absent: list[str]
  unexplained: list[str]

  @property
  def conforms(self) -> bool:
    """Whether every difference is explained."""
    return not self.unexplained


def empty_report(files: Sequence[str]) -> Report:
  """Empty report, with every mode of `authors.MODES`."""
  tallies = {
    (implementation, mode): Tally()
    for implementation, rows in authors.MODES.items()
    for mode in rows
  }
  return Report(
    files=list(files),
    tallies=tallies,
    agreements={},
    explained=[],
    absent=[],
    unexplained=[],
  )


def to_json(report: Report) -> dict[str, Any]:
  """JSON values of the report; an infinite error is the text 'inf'."""

  def plain(found: Tally | Agreement) -> dict[str, Any]:
    return {
      name: str(value) if value == math.inf else value
      for name, value in dataclasses.asdict(found).items()
    }

  return {
    'conforms': report.conforms,
    'files': report.files,
    'bars': {
      'threshold_margin': MARGIN,
      'loss_relative': LOSS_BAR,
      'gradient_relative': GRADIENT_BAR,
      'value_relative': VALUE_BAR,
    },
    'modes': [
      {'implementation': implementation, 'mode': mode, **plain(tally)}
      for (implementation, mode), tally in report.tallies.items()
    ],
    'arrays': [
      {'array': name, **plain(agreement)}
      for name, agreement in report.agreements.items()
    ],
    'explained': report.explained,
    'not_compared': report.absent,
    'unexplained': report.unexplained,
  }


_LEGEND = f"""\
masks      decisions at completion tokens with A != 0; equal, unless within
           {MARGIN:g} of a threshold
A = 0      decisions at A = 0, where the Stable-RL and TRL masks apply the test
           of A < 0 and ours keeps: compared by their convention; the gradient
           does not see them
losses     worst error relative to theirs, at most {LOSS_BAR:g}
gradients  with respect to the logits of pi: norm of the difference relative to
           the norm of theirs, and largest relative to largest, at most\
 {GRADIENT_BAR:g}
verl's clipped and soft surrogates: a masked token counts in the value, at the
ratio where it was clipped, and carries no gradient; the value is theirs, made
of our keep weights and ratios."""


def describe(report: Report) -> str:
  """Text of the tables, explained and unexplained differences, and verdict."""
  header = ('implementation', 'mode', 'masks', 'A = 0', 'differ', 'explained')
  header += ('losses', 'worst', 'gradients', 'norm', 'max')
  lines = [f'{len(report.files)} files: {", ".join(report.files)}', '']
  lines += _table(
    2, header, [(*name, *_cells(t)) for name, t in report.tallies.items()]
  )
  lines += ['', *_LEGEND.splitlines(), '']
  lines += _table(
    1,
    ('array of the files', 'values', 'largest difference', 'relative'),
    [
      (name, str(a.values), _error(a.error), _error(a.relative_error))
      for name, a in report.agreements.items()
    ],
  )
  for title, found in (
    ('Not compared', report.absent),
    ('Explained', report.explained),
    ('UNEXPLAINED', report.unexplained),
  ):
    if found:
      lines += ['', f'{title}:', *(f'  {line}' for line in found[:_SHOWN])]
    if len(found) > _SHOWN:
      lines += [f'  … and {len(found) - _SHOWN} more, all of them in --json.']
  return '\n'.join([*lines, '', _verdict(report)])


def _verdict(report: Report) -> str:
  tallies = report.tallies.values()
  masks = sum(t.masks + t.zero_advantage for t in tallies)
  losses = sum(t.losses for t in tallies)
  gradients = sum(t.gradients for t in tallies)
  compared = f'{masks} masks, {losses} losses, {gradients} gradients compared'
  if report.conforms:
    explained = len(report.explained)
    return f'Conforms: {compared}; every difference explained ({explained}).'
  return (
    f'DOES NOT CONFORM: {compared}; {len(report.unexplained)} unexplained'
    ' differences.'
  )


def _cells(tally: Tally) -> tuple[str, ...]:
  """Cells of a row; a dash if nothing was compared."""
  masks = (tally.masks, tally.zero_advantage, tally.differ, tally.explained)
  losses = (str(tally.losses), _error(tally.loss_error))
  gradients = (
    str(tally.gradients),
    _error(tally.gradient_error),
    _error(tally.gradient_max_error),
  )
  return (
    *(map(str, masks) if any(masks) else '----'),
    *(losses if tally.losses else '--'),
    *(gradients if tally.gradients else '---'),
  )


def _error(value: float) -> str:
  return f'{value:.1e}' if value else '0'


def _table(
  texts: int, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
  """Text table with aligned columns; the first `texts` are left-aligned."""
  widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

  def line(cells: Sequence[str]) -> str:
    return '  '.join(
      cell.ljust(width) if i < texts else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()

  return [line(header), '  '.join('-' * width for width in widths)] + [
    line(row) for row in rows
  ]
