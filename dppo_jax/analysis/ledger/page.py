"""HTML page of a ledger: completions, with tokens colored by a rule's decision.

The page is self-contained: style, script and data are in the file, and its
content security policy loads nothing. Model output is untrusted data: JSON
without characters that HTML interprets, inserted as text.
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

# Maximum rows and tokens of a page: a few megabytes.
MAX_ROWS = 300
MAX_TOKENS = 40_000
# Maximum characters of a prompt, and of a verifier's reason.
MAX_TEXT = 2000

_TEMPLATE = 'page.html'
# Characters that could begin or end a script element or an entity.
_MARKUP = {'<': '\\u003c', '>': '\\u003e', '&': '\\u0026'}
# Digits of a number on the page; a weight near 1 must not become 1.
_DIGITS = 5
_DIGITS_OF_KEEP = 9


def write(
  path: pathlib.Path, record: Record, decided: Sequence[Decided], about: str
) -> int:
  """Number of rows on the page, after writing it.

  Args:
    path: of the file, replaced if it exists.
    record: the tokens.
    decided: decisions of each rule; the first rule is shown first.
    about: a line on the origin of the record.
  """
  chosen = choose_rows(record, decided)
  page = render(record, decided, chosen, about)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, page)
  return len(chosen)


def choose_rows(record: Record, decided: Sequence[Decided]) -> np.ndarray:
  """Rows for the page: those with most weight removed.

  At most `MAX_ROWS` rows and `MAX_TOKENS` tokens, but one row always. First
  those with a masked token of the first rule, then those of another rule, then
  the others; each in the order of the record.
  """
  num_rows = len(record.step)
  # The most under any of the rules; a masked token loses 1.
  by_rule = [
    np.bincount(record.row, one.dropped(), minlength=num_rows)
    for one in decided
  ]
  lost = np.max([one.dropped() for one in decided], axis=0)
  lost = np.bincount(record.row, lost, minlength=num_rows)
  # Ties are broken by a fixed random order: neighbors are of one group.
  ties = np.argsort(subset_order(num_rows))
  order = np.lexsort((ties, -lost))[:MAX_ROWS]
  fits = np.cumsum(record.lengths()[order]) <= MAX_TOKENS
  fits[:1] = True
  chosen = np.sort(order[fits])
  return chosen[
    np.lexsort((chosen, lost[chosen] == 0, by_rule[0][chosen] == 0))
  ]


def render(
  record: Record, decided: Sequence[Decided], rows: np.ndarray, about: str
) -> str:
  """HTML of the page.

  Args:
    record: the tokens.
    decided: decisions of each rule.
    rows: indices of the rows to show.
    about: a line on the origin of the record.
  """
  shown = np.isin(record.row, rows)
  bounded = f'All {len(rows):,} completions.'
  if len(rows) < len(record.step):
    bounded = (
      f'{len(rows):,} of {len(record.step):,} completions, those with most'
      f' weight removed by any of the rules (at most {MAX_ROWS} rows and'
      f' {MAX_TOKENS:,} tokens); shares are of all completions.'
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
  """Content security policy that allows this style and this script only."""
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
  """Hash source of a style or a script in a content security policy."""
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
  # Rows ascend, so the tokens of a row are a slice.
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
  if record.turn is not None:
    out['turn'] = record.turn[tokens].tolist()
  if record.support is not None:
    out['support'] = record.support[tokens].tolist()
  return out


def _cut(text: str) -> str:
  return text if len(text) <= MAX_TEXT else f'{text[:MAX_TEXT]}…'


def _numbers(values: np.ndarray, digits: int = _DIGITS) -> list[float | None]:
  """Rounded values for JSON; None for non-finite ones."""
  return [
    float(f'{value:.{digits}g}') if np.isfinite(value) else None
    for value in values.tolist()
  ]
