"""Report of a ledger for several rules: tables, plots, a page.

The first rule is the run's own; the others are replayed on its tokens.
"""

from collections.abc import Sequence
import pathlib
import re
from typing import NamedTuple

import numpy as np

from dppo_jax.analysis.ledger import figures, meters, replay, tables
from dppo_jax.analysis.ledger import page as page_lib
from dppo_jax.analysis.ledger.replay import Decided, Match, Rule
from dppo_jax.runtime.ledger.record import Record


class Findings(NamedTuple):
  """Decisions of several rules on some steps.

  Attributes:
    record: the tokens.
    decided: of the recorded rule first, then of the others.
    matches: thresholds of equal strength; none if nothing was masked.
    num_differ: tokens whose recorded and replayed decisions differ.
  """

  record: Record
  decided: list[Decided]
  matches: list[Match]
  num_differ: int


def examine(
  record: Record, own: Rule, others: Sequence[Rule], *, match_share: bool
) -> Findings:
  """Findings on every token under every rule.

  Args:
    record: the tokens.
    own: the rule of the run.
    others: to replay.
    match_share: whether to replay them with thresholds that remove as much
      weight as `own`, the number of tokens it masks unless it is soft.

  Raises:
    ValueError: the record lacks what a rule reads, or no threshold can be
      matched.
  """
  first = replay.own(record, own)
  again = replay.decide(record, own)
  wanted = float(np.sum(first.dropped()))
  matches: list[Match] = []
  if wanted:
    candidates = [*replay.relatives(record, own), *others]
    found = [replay.match(record, rule, wanted) for rule in candidates]
    matches = [one for one in found if one is not None]
  if match_share:
    others = [_matched(rule, matches) for rule in others]
  decided = [first, *(replay.decide(record, rule) for rule in others)]
  return Findings(
    record, decided, matches, int(np.sum(first.keep != again.keep))
  )


def _matched(rule: Rule, matches: Sequence[Match]) -> Rule:
  for found in matches:
    if found.matched is rule:
      return found.rule
  if not matches:
    raise ValueError(
      '--match_share: the recorded rule masks no token of these steps, so'
      ' there is no share to match; choose other steps with --step.'
    )
  raise ValueError(
    f'--match_share: {rule.name!r} has no threshold above 0 to scale; omit it,'
    ' or replay it without --match_share.'
  )


def describe(findings: Findings, workdir: pathlib.Path, num_shown: int) -> str:
  """Text to print, with tables of every rule.

  Args:
    findings: from `examine`.
    workdir: of the run.
    num_shown: tokens listed per rule.
  """
  record, decided, matches, num_differ = findings
  num_tokens = len(record.row)
  agreement = 'decides every token as recorded'
  if num_differ:
    agreement = (
      f'decides {num_differ:,} of {num_tokens:,} tokens differently from the'
      ' record, which are at the threshold to within rounding'
    )
  parts = [about(record, workdir), f'Replayed, the recorded rule {agreement}.']
  if matches:
    parts.append(tables.render_matches(matches, num_tokens))
  else:
    parts.append('The recorded rule masks no token of these steps.')
  measured = meters.render(record, [one.rule for one in decided])
  parts += [measured] if measured else []
  parts += [tables.render(record, one, num_shown) for one in decided]
  return '\n\n'.join(parts)


def about(record: Record, workdir: pathlib.Path) -> str:
  """Line on the run and its recorded steps."""
  steps = np.unique(record.step).tolist()
  named = f'steps {", ".join(map(str, steps))}'
  if len(steps) > 12:
    named = f'{len(steps)} steps from {steps[0]} to {steps[-1]}'
  return (
    f'{workdir}: {named}; {len(record.step):,} completions,'
    f' {len(record.row):,} tokens'
  )


def draw(
  findings: Findings,
  workdir: pathlib.Path,
  folder: pathlib.Path,
  page: pathlib.Path,
) -> str:
  """Lines to print, after writing one plot per rule and the page.

  Args:
    findings: from `examine`.
    workdir: of the run.
    folder: of the plots, created if absent.
    page: the HTML file.
  """
  record, decided = findings.record, findings.decided
  folder.mkdir(parents=True, exist_ok=True)
  lines = []
  for number, one in enumerate(decided):
    slug = re.sub(r'[^A-Za-z0-9._]+', '_', one.rule.name)[:60]
    path = folder / f'rule_{number:02d}_{slug}.png'
    figures.draw(record, one, path)
    lines.append(f'Picture: {path}')
  rows = page_lib.write(page, record, decided, about(record, workdir))
  lines.append(
    f'Page:    {page} ({rows:,} of {len(record.step):,} completions,'
    f' {page.stat().st_size / 1e6:.1f} MB)'
  )
  return '\n'.join(lines)
