"""The ledger as a page: completions, each token colored by what a rule did.

One file without any other: style, script and data are in it, and its policy
lets it load nothing. What a model wrote is data: it stands in JSON without a
character that HTML reads, and enters the page as text.
"""

import base64
from collections.abc import Sequence
import hashlib
import importlib.resources
import json
import pathlib
import re
from typing import Any

import numpy as np

from dppo_jax.analysis.ledger import tables
from dppo_jax.analysis.ledger.replay import Decided
from dppo_jax.data.prompt_stream import subset_order
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.runtime.ledger.record import Record
from dppo_jax.runtime.storage.files import write_atomically

# Rows on a page, and tokens in them: a file of some megabytes at most.
MAX_ROWS = 300
MAX_TOKENS = 40_000
# Characters of a prompt, and of what a verifier says.
MAX_TEXT = 2000

_TEMPLATE = 'page.html'
# Characters with which a script element, or an entity, could begin or end.
_MARKUP = {'<': '\\u003c', '>': '\\u003e', '&': '\\u0026'}
# Digits of a number on the page; a weight near 1 must not become 1.
_DIGITS = 5
_DIGITS_OF_KEEP = 9


def write(
  path: pathlib.Path, record: Record, decided: Sequence[Decided], about: str
) -> int:
  """Writes the page; returns the number of rows on it.

  Args:
    path: of the file, replaced if it is there.
    record: the tokens.
    decided: of each rule, the first one shown first.
    about: a line on where the record comes from.
  """
  chosen = choose_rows(record, decided)
  page = render(record, decided, chosen, about)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, page)
  return len(chosen)


def choose_rows(record: Record, decided: Sequence[Decided]) -> np.ndarray:
  """Rows for the page, ascending: those that lose most weight.

  At most `MAX_ROWS` rows and `MAX_TOKENS` tokens, but one row always.
  """
  num_rows = len(record.step)
  # Under any of the rules; a token that is masked loses 1.
  lost = np.max([one.dropped() for one in decided], axis=0)
  lost = np.bincount(record.row, lost, minlength=num_rows)
  # Of equal ones those that a fixed order names: rows adjoin by group.
  ties = np.argsort(subset_order(num_rows))
  order = np.lexsort((ties, -lost))[:MAX_ROWS]
  fits = np.cumsum(record.lengths()[order]) <= MAX_TOKENS
  fits[:1] = True
  return np.sort(order[fits])


def render(
  record: Record, decided: Sequence[Decided], rows: np.ndarray, about: str
) -> str:
  """The page as text.

  Args:
    record: the tokens.
    decided: of each rule.
    rows: which of the B to show.
    about: a line on where the record comes from.
  """
  shown = np.isin(record.row, rows)
  bounded = f'All {len(rows):,} completions.'
  if len(rows) < len(record.step):
    bounded = (
      f'{len(rows):,} of {len(record.step):,} completions, those with most'
      f' weight taken by any of the rules (at most {MAX_ROWS} rows and'
      f' {MAX_TOKENS:,} tokens); shares are of all of them.'
    )
  ids = np.unique(record.token[shown]).tolist()
  data = {
    'about': about,
    'bounded': bounded,
    'pieces': {str(i): record.pieces[i] for i in ids},
    'rules': [_rule(record, one) for one in decided],
    'rows': [_row(record, decided, int(row)) for row in rows],
  }
  text = json.dumps(data, allow_nan=False, separators=(',', ':'))
  for character, escaped in _MARKUP.items():
    text = text.replace(character, escaped)
  template = (
    importlib.resources.files('dppo_jax.analysis.ledger')
    .joinpath(_TEMPLATE)
    .read_text(encoding='utf-8')
  )
  page = template.replace('{{policy}}', _policy(template))
  return page.replace('{{data}}', text)


def _policy(template: str) -> str:
  """A content security policy: this style, this script, nothing else."""
  style = re.search(r'<style>(.*?)</style>', template, re.DOTALL)
  script = re.search(r'<script>(.*?)</script>', template, re.DOTALL)
  if style is None or script is None:
    raise ValueError(f'{_TEMPLATE}: lacks its style or its script.')
  return (
    f"default-src 'none'; style-src '{source_hash(style[1])}';"
    f" script-src '{source_hash(script[1])}'; base-uri 'none';"
    " form-action 'none'"
  )


def source_hash(text: str) -> str:
  """How a policy names a style or a script that it admits."""
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'


def _rule(record: Record, decided: Decided) -> dict[str, Any]:
  loss = decided.rule.loss
  unit = DIVERGENCES[loss.divergence].unit
  return {
    'name': decided.rule.name,
    'text': tables.describe(decided.rule),
    'anchor': loss.anchor,
    'divergence': f'{loss.divergence}, {unit}',
    'share': tables.overall(record, decided)._asdict(),
  }


def _row(
  record: Record, decided: Sequence[Decided], row: int
) -> dict[str, Any]:
  # Rows ascend, so that those of one are a slice.
  begin, end = np.searchsorted(record.row, [row, row + 1])
  tokens = slice(int(begin), int(end))
  log_mu = record.rollout_log_probs[tokens].astype(np.float64)
  log_pi = record.log_probs[tokens].astype(np.float64)
  out = {
    'step': int(record.step[row]),
    'row': int(np.sum(record.step[:row] == record.step[row])),
    'example': int(record.example_id[row]),
    'group': int(record.group_id[row]),
    'update': int(record.update[row]),
    'reward': _numbers(record.reward[row : row + 1])[0],
    'reason': _cut(record.reasons[row]),
    'prompt': _cut(record.prompts[row]),
    'token': record.token[tokens].tolist(),
    'position': record.position[tokens].tolist(),
    'advantage': _numbers(record.advantages[tokens]),
    'mu': _numbers(np.exp(log_mu)),
    'pi': _numbers(np.exp(log_pi)),
    'ratio': _numbers(np.exp(np.clip(log_pi - log_mu, -80, 80))),
    'divergence': [_numbers(one.divergence[tokens]) for one in decided],
    'keep': [_numbers(one.keep[tokens], _DIGITS_OF_KEEP) for one in decided],
  }
  if record.rollout_entropy is not None:
    out['entropy'] = _numbers(record.rollout_entropy[tokens])
  if record.recomputed_log_probs is not None:
    anchor = record.recomputed_log_probs[tokens].astype(np.float64)
    out['recomputed'] = _numbers(np.exp(anchor))
  return out


def _cut(text: str) -> str:
  return text if len(text) <= MAX_TEXT else f'{text[:MAX_TEXT]}…'


def _numbers(values: np.ndarray, digits: int = _DIGITS) -> list[float | None]:
  """As JSON holds them, rounded; None where not finite."""
  return [
    float(f'{value:.{digits}g}') if np.isfinite(value) else None
    for value in values.tolist()
  ]
