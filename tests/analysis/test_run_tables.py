import dataclasses
import math

import numpy as np
import pytest

from dppo_jax.analysis import run_tables
from dppo_jax.analysis.jobs.job import Job
from dppo_jax.runtime.ledger import files
from tests.support import figures, ledger_records


@pytest.fixture
def outcome(tmp_path):
  return figures.outcome(Job(name='TV', config={'seed': 1}), tmp_path)


@pytest.fixture
def recorded(outcome):
  """The outcome, and a record of its second step."""
  record = ledger_records.hand_made()
  record.step[:] = 2
  folder = outcome.folder / files.FOLDER
  folder.mkdir()
  files.save(folder / 'step_000002.npz', record)
  return outcome, record


def test_lines_of_a_step_are_merged(outcome):
  columns = {
    'reward': 'rewards/mean',
    'held_out': run_tables.COLUMNS['held_out'],
  }
  rows = list(run_tables.step_rows(columns)([outcome]))
  assert [row['step'] for row in rows] == [0, 1, 2]
  assert math.isnan(rows[0]['reward'])
  assert rows[2] == {
    'variant': 'TV',
    'seed': 1,
    'step': 2,
    'reward': pytest.approx(0.81),
    'held_out': 0.5,
  }


def test_ledger_columns_are_added_to_metrics(recorded):
  outcome, record = recorded
  read = run_tables.with_ledger({'reward': 'rewards/mean'}, run_tables.MASKED)
  rows = list(read([outcome]))
  masked = record.keep < 1
  assert masked.any()
  assert not masked.all()
  expected = np.exp(record.rollout_log_probs)[masked].mean()
  assert rows[2]['masked_mu'] == pytest.approx(expected)
  assert math.isnan(rows[1]['masked_mu'])


def test_nothing_masked_has_no_mean(recorded):
  _, record = recorded
  record.keep[:] = 1
  assert math.isnan(run_tables.MASKED['masked_mu'](record))


def test_top_k_mass():
  record = ledger_records.trained()
  top = np.exp(record.rollout_top_log_probs)
  assert run_tables.top_k_mass(1)(record) == pytest.approx(top[:, 0].mean())
  count = top.shape[1]
  assert run_tables.top_k_mass(count)(record) == pytest.approx(
    top.sum(1).mean()
  )
  assert math.isnan(run_tables.top_k_mass(count + 1)(record))


def test_the_probability_of_a_first_token():
  record = ledger_records.trained()
  first = record.position == 0
  assert 0 < first.sum() < len(first)
  top = np.exp(record.rollout_top_log_probs[first])
  token = int(record.top_ids[first][0, 0])
  expected = [
    row[ids == token].sum()
    for row, ids in zip(top, record.top_ids[first], strict=True)
  ]
  found = run_tables.probability_of_first(token)(record)
  assert found == pytest.approx(np.mean(expected))
  assert found > 0
  assert run_tables.probability_of_first(10**6)(record) == 0
  assert math.isnan(
    run_tables.probability_of_first(token)(
      dataclasses.replace(record, top_ids=None)
    )
  )


def test_tokens_of_a_record(recorded):
  outcome, record = recorded
  rows = list(run_tables.token_rows([outcome]))
  mu = np.exp(record.rollout_log_probs.astype(np.float64))
  pi = np.exp(record.log_probs.astype(np.float64))
  (run,) = (row for row in rows if row['kind'] == 'run')
  assert run['mean_abs'] == pytest.approx(np.abs(pi - mu).mean())
  common = mu >= 0.5
  assert run['tv_common'] == pytest.approx(np.abs(pi - mu)[common].mean())
  assert run['log_common'] == pytest.approx(
    np.abs(np.log(pi / mu))[common].mean()
  )
  tokens = [row for row in rows if row['kind'] == 'token']
  assert len(tokens) == -(-len(mu) // 9)
  assert tokens[0]['ratio'] == pytest.approx(pi[0] / mu[0])


def test_masked_shares_of_a_run(recorded):
  outcome, record = recorded
  lines = outcome.folder / 'metrics.jsonl'
  name = 'trust_region/fraction_masked'
  with lines.open('a') as file:
    for step, share in ((1, 0.2), (2, 0.4)):
      rare = f'"{name}_rare": {share / 2}'
      file.write(f'{{"step": {step}, "{name}": {share}, {rare}}}\n')
  rows = list(run_tables.masked_rows([outcome]))
  (run,) = (row for row in rows if row['kind'] == 'run')
  assert run['masked'] == pytest.approx(0.3)
  assert run['masked_rare'] == pytest.approx(0.15)
  for kind in ('mu', 'token'):
    of_kind = [row for row in rows if row['kind'] == kind]
    assert sum(row['tokens'] for row in of_kind) == len(record.row)
    masked = sum(row['tokens'] * row['masked'] for row in of_kind)
    assert masked == pytest.approx((record.keep < 1).sum())
