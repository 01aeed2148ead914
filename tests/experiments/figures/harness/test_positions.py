import dataclasses
import math

import numpy as np
import pytest

from dppo_jax.analysis.jobs.job import Job
from dppo_jax.analysis.table import Points
from dppo_jax.experiments.figures.harness import positions
from dppo_jax.runtime.ledger import files
from tests.support import figures, ledger_records
from tests.support.tables import table


def _long():
  """A record whose tokens are at positions 0 to 39, two a position."""
  record = ledger_records.hand_made()
  n, first = 80, slice(0, 1)
  tokens = {
    name: np.repeat(getattr(record, name)[first], n)
    for name in ('token', 'advantages', 'divergence')
  }
  tokens['row'] = np.repeat(np.arange(2, dtype=np.int32), 40)
  place = np.tile(np.arange(40), 2).astype(np.int32)
  log_mu = np.full(n, math.log(0.5), np.float32)
  # |pi - mu| is .001 at position 0, and .001 more at each further one.
  log_pi = np.log(0.5 + 0.001 * (place + 1)).astype(np.float32)
  tokens['keep'] = np.where(place < 32, 1.0, 0.0).astype(np.float32)
  section = {'rule': 'cppo', 'delta_high': 0.15, 'w_min': 0.8}
  return dataclasses.replace(
    record,
    **tokens,
    position=place,
    rollout_log_probs=log_mu,
    log_probs=log_pi,
    num_columns=40,
    trust_region=section,
  )


def test_by_position():
  first, second, last = positions.by_position(_long())
  assert [p['position'] for p in (first, second, last)] == [7.5, 23.5, 35.5]
  assert first['tv'] == pytest.approx(np.mean(np.arange(1, 17)) * 1e-3, 1e-4)
  # Of 32 tokens the largest three: two at position 15 and one at 14.
  assert first['tv_top'] == pytest.approx((2 * 16 + 15) / 3 * 1e-3, 1e-4)
  assert (second['masked_here'], last['masked_here']) == (0.0, 1.0)
  assert last['bound'] == pytest.approx(0.15 / (1 - 0.2 * 35.5 / 39))


def test_few_tokens_are_left_out():
  record = dataclasses.replace(_long(), num_columns=41)
  record.position[record.position >= 32] = 31
  assert [p['position'] for p in positions.by_position(record)] == [7.5, 23.5]


def test_without_cppo_the_bound_is_delta():
  record = _long()
  section = {**record.trust_region, 'rule': 'divergence'}
  record = dataclasses.replace(record, trust_region=section)
  assert {p['bound'] for p in positions.by_position(record)} == {0.15}


def test_rows(tmp_path):
  outcome = figures.outcome(Job(name='TV', config={'seed': 1}), tmp_path)
  record = _long()
  record.step[:] = 2
  folder = outcome.folder / files.FOLDER
  folder.mkdir()
  files.save(folder / 'step_000002.npz', record)
  with (outcome.folder / 'metrics.jsonl').open('a') as file:
    names = positions.COLUMNS
    file.write(
      f'{{"step": 2, "{names["masked"]}": 0.04,'
      f' "{names["masked_by_budget"]}": 0.03}}\n'
    )
  rows = list(positions.rows([outcome]))
  assert {tuple(row) for row in rows} == {tuple(rows[0])}
  steps = [row for row in rows if row['kind'] == 'step']
  assert [row['step'] for row in steps] == [0, 1, 2]
  assert steps[2]['budget_share'] == pytest.approx(0.75)
  assert math.isnan(steps[1]['budget_share'])
  assert len(rows) - len(steps) == 3


@pytest.mark.parametrize(
  ('factor', 'word'), [(2.0, 'reproduced'), (5.0, 'not reproduced')]
)
def test_varies(factor, word):
  rows = [
    {'variant': 'a', 'seed': seed, 'position': str(place), 'tv': str(value)}
    for seed in '01234'
    for place, value in enumerate((0.01, 0.03, 0.02))
  ]
  found = positions.varies(Points(rows), 'a', 'tv', factor)
  assert found.verdict == word
  assert found.seen.startswith('0.01 to 0.03;')
  assert positions.varies(Points(rows), 'b', 'tv', factor).num_seeds == 0
  # A place that one seed lacks is nobody's, and one seed tells no place.
  rows[1]['tv'] = ''
  found = positions.varies(Points(rows), 'a', 'tv', 1.5)
  assert found.seen.startswith('0.01 to 0.02;')
  assert positions.varies(Points(rows[:3]), 'a', 'tv', factor).num_seeds == 0


def test_positions_that_are_alike_do_not_vary():
  """Of noise alone, the most is twice the least; other seeds tell where."""
  noise = np.random.default_rng(0).uniform(0.005, 0.03, (5, 12))
  assert (noise.max(1) > 2 * noise.min(1)).all()
  rows = [
    {'variant': 'a', 'seed': str(s), 'position': str(place), 'tv': str(tv)}
    for s, values in enumerate(noise)
    for place, tv in enumerate(values)
  ]
  found = positions.varies(Points(rows), 'a', 'tv', 2.0)
  assert found.verdict != 'reproduced'


def test_early():
  rows = [
    {'variant': 'a', 'seed': seed, 'step': str(step), 'x': str(value)}
    for seed in '01234'
    for step, value in enumerate(('', 0.9, 0.7, 0.5, 0.4, 0.3, 0.1))
  ]
  found = positions.early(Points(rows), 'It is.', 'a', 'x', 0.5)
  assert found.seen.startswith('0.8 against 0.2;')
  assert found.verdict == 'reproduced'
  more = positions.early(Points(rows), 'It is.', 'a', 'x', 0.7)
  assert more.verdict == 'not reproduced'
  short = table({'a': [0.1]})
  assert positions.early(short, 'It is.', 'a', 'reward', 0.1).num_seeds == 0
