"""The report as text and as JSON."""

import json
import math

from dppo_jax.conformance import verdict


def _report(**changes):
  report = verdict.empty_report(['a.npz', 'b.npz'])
  tally = report.tallies['stable_rl', 'ppo']
  tally.masks, tally.zero_advantage, tally.differ = 90, 7, 2
  tally.losses, tally.loss_error = 8, 1.25e-7
  report.agreements['log_probs'] = verdict.Agreement(values=30, error=2e-7)
  for name, value in changes.items():
    setattr(report, name, value)
  return report


def test_a_row_a_mode_and_dashes_for_what_is_not_there():
  lines = verdict.describe(_report()).splitlines()
  row = next(line for line in lines if ' ppo ' in line)
  assert row.split() == (
    ['stable_rl', 'ppo', '90', '7', '2', '0', '8', '1.2e-07', '-', '-', '-']
  )
  header = next(line for line in lines if line.startswith('implementation'))
  for title, number in (('masks', '90'), ('A = 0', '7'), ('worst', '1.2e-07')):
    assert row[: header.index(title) + len(title)].endswith(f' {number}')
  assert any(
    line.split() == ['log_probs', '30', '2.0e-07', '0'] for line in lines
  )


def test_the_text_says_which_masks_were_compared():
  text = verdict.describe(_report())
  assert 'A != 0' in text
  assert 'compared by their convention' in text


def test_verdict():
  assert verdict.describe(_report()).splitlines()[-1] == (
    'Conforms: 97 masks, 8 losses, 0 gradients compared; every difference'
    ' explained (0).'
  )
  failed = verdict.describe(_report(unexplained=['a.npz: x', 'a.npz: y']))
  assert failed.splitlines()[-1] == (
    'DOES NOT CONFORM: 97 masks, 8 losses, 0 gradients compared; 2 unexplained'
    ' differences.'
  )
  assert 'UNEXPLAINED:\n  a.npz: x\n  a.npz: y\n' in failed


def test_long_lists_are_cut_in_the_text_only():
  report = _report(explained=[f'line {i}' for i in range(60)])
  text = verdict.describe(report)
  assert 'line 49\n  … and 10 more' in text
  assert len(verdict.to_json(report)['explained']) == 60


def test_json_is_plain():
  report = _report(unexplained=['a.npz: x'])
  report.tallies['verl', 'gspo'].loss_error = math.inf
  plain = json.loads(json.dumps(verdict.to_json(report), allow_nan=False))
  assert plain['conforms'] is False
  assert plain['files'] == ['a.npz', 'b.npz']
  rows = {(row['implementation'], row['mode']): row for row in plain['modes']}
  assert len(rows) == 12 + 4 + 7 + 4
  assert rows['stable_rl', 'ppo']['masks'] == 90
  assert rows['verl', 'gspo']['loss_error'] == 'inf'
  assert plain['bars']['gradient_relative'] == 1e-4
