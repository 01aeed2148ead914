"""Counts of masked tokens: by sign, by mu, by token, by position.

Signs are those of the advantage; mu is the sampling distribution. A token is
masked if its weight M is 0, as in the metrics of a run; the weight removed by a
soft rule is the sum of 1 - M.
"""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

import numpy as np

from dppo_jax.analysis.ledger.replay import Decided, Match, Rule
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.trust_regions import APPLIES_TO, TRUST_REGIONS
from dppo_jax.runtime.ledger.record import Record

# Edges of the ranges of mu; the last range includes 1.
MU_EDGES = (0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
NUM_DECILES = 10
_APPLIES_TO_ALL = {
  'alpha_low': 0.0,
  'alpha_high': 0.0,
  'advantage_sign': 'both',
}


class Share(NamedTuple):
  """Counts of tokens of one kind, and of masked ones.

  Attributes:
    label: of the kind.
    num_tokens: all tokens.
    negative: tokens with A < 0.
    positive: tokens with A > 0.
    masked: masked tokens.
    masked_negative: masked tokens with A < 0.
    masked_positive: masked tokens with A > 0.
    dropped: removed weight, sum of 1 - M.
  """

  label: str
  num_tokens: int
  negative: int
  positive: int
  masked: int
  masked_negative: int
  masked_positive: int
  dropped: float

  def fraction(self) -> float:
    """Masked share, 0.0 without tokens."""
    return self.masked / max(self.num_tokens, 1)


def share(
  record: Record, decided: Decided, label: str, of: np.ndarray
) -> Share:
  """Counts of the tokens selected by `of`, bool [n]."""
  negative, positive = record.advantages < 0, record.advantages > 0
  masked = decided.masked() & of
  return Share(
    label=label,
    num_tokens=int(np.sum(of)),
    negative=int(np.sum(of & negative)),
    positive=int(np.sum(of & positive)),
    masked=int(np.sum(masked)),
    masked_negative=int(np.sum(masked & negative)),
    masked_positive=int(np.sum(masked & positive)),
    dropped=float(np.sum(decided.dropped()[of])),
  )


def overall(record: Record, decided: Decided) -> Share:
  """All tokens."""
  return share(record, decided, 'all', np.ones(len(record.row), bool))


def by_mu(record: Record, decided: Decided) -> list[Share]:
  """Shares per range of mu, `MU_EDGES`."""
  mu = np.exp(record.rollout_log_probs.astype(np.float64))
  place = np.searchsorted(MU_EDGES[1:-1], mu, side='right')
  shares = []
  for i, (low, high) in enumerate(itertools.pairwise(MU_EDGES)):
    label = f'[{low:g}, {high:g}{"]" if high == 1 else ")"}'
    shares.append(share(record, decided, label, place == i))
  return shares


def by_position(record: Record, decided: Decided) -> list[Share]:
  """Shares per tenth of a completion's own length.

  Token t of T (from 1) lies in tenth floor(10 (t - 1) / T), from 0.
  """
  lengths = record.lengths()
  begins = np.cumsum(lengths) - lengths
  rank = np.arange(len(record.row)) - begins[record.row]
  tenth = NUM_DECILES * rank // lengths[record.row]
  return [
    share(record, decided, f'{10 * i}–{10 * (i + 1)} %', tenth == i)
    for i in range(NUM_DECILES)
  ]


def by_token(record: Record, decided: Decided, most: int) -> list[Share]:
  """Shares per token with removed weight, in descending order of it."""
  dropped = decided.dropped()
  ids, place = np.unique(record.token, return_inverse=True)
  lost = np.bincount(place, dropped, minlength=len(ids))
  ids, lost = ids[lost > 0], lost[lost > 0]
  order = np.lexsort((ids, -lost))[:most]
  return [
    share(record, decided, record.pieces[i], record.token == i)
    for i in ids[order].tolist()
  ]


def describe(rule: Rule) -> str:
  """Line with a rule, its divergence and its thresholds."""
  loss, row = rule.loss, TRUST_REGIONS[rule.loss.rule]
  words = [loss.rule]
  if row.reads_divergence:
    measured = DIVERGENCES[loss.divergence]
    words.append(f'on {loss.divergence} ({measured.unit})')
    if measured.records == 'top_k' and loss.top_k_set != 'union':
      words.append(f'with {loss.top_k_set}')
  words.append(f'from the {loss.anchor} policy')
  names = list(dict.fromkeys([*(APPLIES_TO if row.gated else ()), *row.reads]))
  bounds = [
    f'{name} {value:g}' if isinstance(value, float) else f'{name} {value}'
    for name in names
    if (value := getattr(loss.bounds, name)) != _APPLIES_TO_ALL.get(name)
  ]
  return ' · '.join([' '.join(words), *bounds])


def render(record: Record, decided: Decided, num_tokens: int) -> str:
  """Text of all tables of a rule."""
  total = overall(record, decided)
  lines = [f'{decided.rule.name}: {describe(decided.rule)}']
  soft = bool(((decided.keep > 0) & (decided.keep < 1)).any())
  if soft:
    lines.append(
      f'  A soft rule: {total.dropped / max(total.num_tokens, 1):.2%} of the'
      ' weight is removed; masked below means M = 0.'
    )
  shares = _table('mu', [*by_mu(record, decided), total], soft)
  tenths = _table('tenth', by_position(record, decided), soft)
  lines += ['', *shares, '', *tenths]
  tokens = by_token(record, decided, num_tokens)
  if tokens:
    tokens = [t._replace(label=printable(t.label)) for t in tokens]
    lines += ['', *_table('token', tokens, soft)]
  return '\n'.join(lines)


def render_matches(matches: Sequence[Match], num_tokens: int) -> str:
  """Text of the thresholds of equal strength."""
  wanted = matches[0].wanted
  lines = [
    f'Thresholds that mask as many tokens: {_weight(wanted)} of'
    f' {num_tokens:,},'
    f' {wanted / max(num_tokens, 1):.3%}'
  ]
  width = max(len(found.matched.name) for found in matches)
  for found in matches:
    thresholds = found.thresholds
    if len(set(thresholds.values())) == 1 and 'delta_low' in thresholds:
      thresholds = {'delta': thresholds['delta_low']}
    text = ', '.join(f'{name}={v:.9g}' for name, v in thresholds.items())
    if abs(found.dropped - wanted) > 0.01:
      text += f'  (the nearest: masks {_weight(found.dropped)})'
    lines.append(f'  {found.matched.name:<{width}}  {text}')
  return '\n'.join(lines)


def printable(text: str) -> str:
  """Token text on one line of a terminal, without control characters."""
  shown = ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)
  shown = shown if len(shown) <= 24 else f'{shown[:23]}…'
  return shown if shown.strip() else repr(shown)


def _table(kind: str, shares: Sequence[Share], soft: bool) -> list[str]:
  heads = [kind, 'tokens', 'masked', 'of all']
  heads += ['A<0', 'of A<0', 'A>0', 'of A>0']
  if soft:
    heads.append('weight lost')
  rows = [heads]
  for s in shares:
    rows.append(
      [
        s.label,
        f'{s.num_tokens:,}',
        f'{s.masked:,}',
        _percent(s.masked, s.num_tokens),
        f'{s.masked_negative:,}',
        _percent(s.masked_negative, s.negative),
        f'{s.masked_positive:,}',
        _percent(s.masked_positive, s.positive),
        *([_percent(s.dropped, s.num_tokens)] if soft else ()),
      ]
    )
  widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
  lines = []
  for row in rows:
    cells = [cell.rjust(w) for cell, w in zip(row, widths, strict=True)]
    cells[0] = row[0].ljust(widths[0])
    lines.append('  ' + '  '.join(cells))
  return lines


def _weight(tokens: float) -> str:
  """Text of a sum of 1 - M: an integer for hard rules."""
  whole = abs(tokens - round(tokens)) < 1e-6
  return f'{tokens:,.0f}' if whole else f'{tokens:,.2f}'


def _percent(part: float, whole: int) -> str:
  return f'{part / whole:.2%}' if whole else '–'
