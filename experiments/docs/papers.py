"""Statements of the papers, their implementation here, and their verdicts.

The verdict of a row is that of the claim that starts with its `claim`, in the
kept results of its figure; '' has none.
"""

import pathlib
import re
from typing import NamedTuple

RESULTS = pathlib.Path(__file__).resolve().parents[1] / 'figures/results'


class Statement(NamedTuple):
  """A row of docs/papers.md.

  Attributes:
    what: statement of the paper.
    where: equation, figure or section in it.
    functions: 'module.function' of dppo_jax/ops, or paths below dppo_jax.
    presets: keys of PRESETS.
    figure: a folder of RESULTS, or ''.
    claim: start of the claim there, or ''.
  """

  what: str
  where: str
  functions: tuple[str, ...] = ()
  presets: tuple[str, ...] = ()
  figure: str = ''
  claim: str = ''


class Claim(NamedTuple):
  """A row of the verdict table in a figure's README.md."""

  claim: str
  verdict: str
  seeds: str
  seen: str


_ALIKE = 'DPPO-Binary-TV and DPPO-TopK-TV earn alike'

DPPO = (
  Statement(
    'policy gradient of the family',
    'eq. 23',
    ('objectives.score_form', 'objectives.importance_weight'),
    ('pg_is', 'pg_tis'),
    'stability',
    'Without a trust region training collapses',
  ),
  Statement('surrogate', 'eq. 12', ('objectives.surrogate_form',)),
  Statement(
    'mask by divergence',
    'eq. 12',
    ('trust_regions.keep_by_divergence',),
    ('dppo_binary_tv',),
    'stability',
    'DPPO keeps the mismatch lower',
  ),
  Statement(
    'Binary TV and KL',
    'eq. 13, 14',
    ('divergences.binary_tv', 'divergences.binary_kl'),
    ('dppo_binary_tv', 'dppo_binary_kl'),
    'approximation',
    _ALIKE,
  ),
  Statement(
    'Top-K TV and KL',
    'eq. 15, 16',
    ('divergences.topk_tv', 'divergences.topk_kl'),
    ('dppo_topk_tv', 'dppo_topk_kl'),
    'approximation',
    _ALIKE,
  ),
  Statement(
    'exact TV and KL',
    'eq. 12',
    ('divergences.exact_tv', 'lm_head/fused_loss.py'),
    ('dppo_exact_tv', 'dppo_exact_kl'),
    'approximation',
    'DPPO-Binary-TV and Exact-TV earn alike',
  ),
  Statement(
    'the ratio is volatile for rare tokens, TV is not',
    'eq. 11, Fig. 1, 2',
    figure='ratio_vs_tv',
    claim='The ratio is volatile for rare tokens',
  ),
  Statement(
    'the rollout policy as anchor',
    'Fig. 4',
    presets=('dppo_binary_kl_recomputed',),
    figure='anchor',
    claim='More reward by the rollout anchor, int4.',
  ),
  Statement(
    'Mask-delta: bad updates destabilize',
    'section 5.3, Fig. 5',
    ('trust_regions.mask_bad_updates',),
    ('mask_0.5', 'mask_0.8'),
    'bad_updates',
    'Masking the bad updates alone',
  ),
  Statement(
    'Relax-high, -low, -both',
    'section 6, Fig. 6, 7',
    ('directions.applies_to',),
    ('relax_high', 'relax_low', 'relax_both'),
    'relaxation',
    'Exempting rare tokens improves',
  ),
  Statement(
    'the ratio clip masks rare tokens',
    'App. D',
    ('trust_regions.keep_by_ratio',),
    ('grpo_clip_higher',),
    'clipped_tokens',
    'The ratio clip masks rare tokens',
  ),
  Statement(
    'DPPO is less sensitive to its threshold',
    'Fig. 19',
    figure='sensitivity',
    claim='DPPO-Binary-TV is less sensitive',
  ),
  Statement(
    'a rare good token rises faster',
    'section 4.2',
    figure='rare_token',
    claim='Binary TV raises a rare token faster',
  ),
  Statement(
    'a divergence fits long-tailed vocabularies better',
    'sections 1, 4',
    figure='large_vocabulary',
    claim='Binary TV earns more than the ratio clip',
  ),
)
CPPO = (
  Statement(
    'position weights and prefix budget',
    'eq. 8, 9',
    ('cppo.position_weights', 'cppo.accumulate', 'cppo.thresholds'),
    ('cppo',),
    'cppo_ablation',
    'CPPO earns more than DPPO',
  ),
  Statement(
    'position weights alone',
    'eq. 9',
    ('cppo.position_weights',),
    ('cppo_no_budget',),
    'cppo_ablation',
    'so do its weights alone',
  ),
  Statement(
    'prefix budget alone',
    'eq. 8',
    ('cppo.accumulate',),
    ('cppo_no_weights',),
    'cppo_ablation',
    'and its budget alone',
  ),
  Statement(
    'dynamic budget',
    'eq. 22',
    ('cppo.dynamic_budget',),
    ('cppo_dynamic',),
    'cppo_budget',
    'The budget masks most then',
  ),
  Statement(
    'the order of the weights matters',
    'Fig. 5',
    ('cppo.position_weights',),
    ('cppo_shuffled',),
    'cppo_ablation',
    'The order of the weights matters',
  ),
  Statement(
    'soft gate',
    'appendix',
    ('cppo.soft_gate',),
    ('cppo_soft',),
    'cppo_ablation',
    'Soft and hard earn alike',
  ),
  Statement(
    'deviation varies with position',
    'Fig. 2',
    figure='cppo_budget',
    claim='Policy deviation varies with position',
  ),
)


def claims(figure: str) -> list[Claim]:
  """Claims and verdicts of a figure's kept results."""
  text = (RESULTS / figure / 'README.md').read_text()
  rows = [
    [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
    for line in text.splitlines()
    if line.startswith('|')
  ]
  head = next((row for row in rows if row[0] == 'claim'), None)
  if head is None:
    return []
  start = rows.index(head) + 2
  found = []
  for row in rows[start:]:
    if len(row) != len(head):
      break
    cells = dict(zip(head, row, strict=True))
    p = f', p {cells["p"]}' if cells.get('p') else ''
    verdict = cells['verdict'].strip('*')
    found.append(
      Claim(cells['claim'], f'{verdict}{p}', cells['n'], cells['seen'])
    )
  return found


def verdict(statement: Statement) -> str:
  """Verdict on a statement, or ''.

  Raises:
    ValueError: its figure has no such claim.
  """
  if not statement.claim:
    return ''
  for claim in claims(statement.figure):
    if claim.claim.startswith(statement.claim):
      return claim.verdict
  raise ValueError(
    f'{statement.figure}: no claim begins with {statement.claim!r}'
  )
