"""The fair trial's conditions and its verdicts, on made-up rewards."""

import numpy as np
import pytest

from dppo_jax.analysis.table import Points
from dppo_jax.configs import stale_digits
from dppo_jax.experiments.figures.harness import fair, verdicts
from dppo_jax.runtime.config.problems import find_problems

_SEEDS = range(10, 15)


def _points(gain, methods=fair.METHODS, seeds=_SEEDS, noise=0.01):
  """Rewards of .5, `gain` of a method more, and noise; more removed, less."""
  rng = np.random.default_rng(0)
  scales = {fair.at_scale(scale): scale for scale in fair.SCALES}
  return Points(
    [
      {
        'variant': name,
        'label': label,
        'task': task,
        'seed': str(seed),
        'dropped': str(0.1 / scales.get(name, 0.8)),
        'reward': str(
          0.5
          + gain.get(name, 0.0)
          + rng.normal(scale=noise)
          - 0.02 / scales.get(name, 0.8)
        ),
      }
      for task in fair.TASKS
      for label in fair.MISMATCHES
      for seed in seeds
      for name in dict.fromkeys((*methods, *scales))
    ]
  )


def _found(points):
  return {one.claim: one for one in fair.judge(points)}


def test_every_condition_is_a_config_that_runs():
  variants = fair.variants()
  assert len(fair.METHODS) == 13
  assert len(variants) == (13 + 4) * 6 * 2
  # Each method, mismatch and task once; they are independent.
  methods = {name.split(' | ')[0] for name in variants}
  tried = {f'{method} | int4 | sort' for method in methods}
  tried |= {f'PG-IS | {m} | running sum' for m in fair.MISMATCHES}
  for name in sorted(tried):
    config = stale_digits.get_config()
    config.update_from_flattened_dict(variants[name])
    assert find_problems(config.to_dict(), 1) == [], name


def test_methods_have_their_papers_thresholds():
  variants = fair.variants()
  for method, thresholds in (
    ('DPPO-Binary-TV', {'delta_low': 0.2, 'delta_high': 0.2}),
    ('IcePop', {'clip_low': 0.5, 'clip_high': 4.0}),
    ('CPPO', {'delta_low': 0.15, 'delta_high': 0.15, 'budget': 0.015}),
  ):
    own = variants[f'{method} | int8 | sort']
    found = {key: own[f'trust_region.{key}'] for key in thresholds}
    assert found == pytest.approx(thresholds)


def test_scales_change_the_references_threshold_alone():
  variants = fair.variants()
  own = variants[f'{fair.REFERENCE} | int8 | sort']
  for scale in fair.SCALES:
    other = variants[f'{fair.at_scale(scale)} | int8 | sort']
    keys = {'trust_region.delta_low', 'trust_region.delta_high'}
    assert {k for k in own if own[k] != other[k]} == (
      keys if scale != 1 else set()
    )
    assert [other[k] for k in keys] == pytest.approx([0.2 * scale] * 2)


def test_verdicts_are_what_was_put_in():
  gain = {'CPPO': 0.1, 'DRPO': -0.1, 'PG-IS': 0.03}
  found = _found(_points(gain))
  for label in (*fair.MISMATCHES, 'all mismatches'):
    for how in ('at default thresholds', 'at equal removed weight'):
      for method, word in (
        ('CPPO', verdicts.REPRODUCED),
        ('DRPO', verdicts.OPPOSITE),
        ('IPO', verdicts.NOT_REPRODUCED),
      ):
        claim = f'{method} earns more than {fair.REFERENCE}, {label}, {how}.'
        assert found[claim].verdict == word, claim
        assert found[claim].num_seeds == 10
        assert found[claim].p <= 0.05
  claims = [claim for claim in found if claim.startswith('PG-IS')]
  assert len(claims) == 7  # Nothing is removed: never at equal weight.
  assert {found[c].verdict for c in claims} == {verdicts.NOT_REPRODUCED}


def test_noise_is_not_distinguishable():
  found = _found(_points({}, noise=0.3))
  words = [one.verdict for one in found.values()]
  share = words.count(verdicts.NOT_DISTINGUISHABLE) / len(words)
  assert share > 0.95


def test_one_seed_shows_nothing():
  found = _found(_points({'CPPO': 0.5}, seeds=(10,)))
  assert {one.verdict for one in found.values()} == {
    verdicts.NOT_DISTINGUISHABLE
  }


def test_a_block_that_lacks_a_run_is_left_out():
  points = _points({'CPPO': 0.1})
  lost = Points(
    [
      row
      for row in points.rows
      if (row['variant'], row['label'], row['task'], row['seed'])
      != ('CPPO', 'int4', 'sort', '12')
    ]
  )
  found = _found(lost)
  claim = f'CPPO earns more than {fair.REFERENCE}, {{}}, at default thresholds.'
  numbers = [
    found[claim.format(label)].num_seeds
    for label in ('int4', 'int8', 'all mismatches')
  ]
  assert numbers == [9, 10, 9]


def test_strength_decides_at_equal_weight():
  """More reward by removing less alone is no gain at equal weight."""
  points = _points({}, noise=0.0)
  rows = []
  for row in points.rows:
    if row['variant'] == 'IPO':  # The reference near twice the bound.
      dropped = 0.06
      row = {
        **row,
        'dropped': str(dropped),
        'reward': str(0.5 - 0.2 * dropped),
      }
    rows.append(row)
  found = fair._at_equal(Points(rows).where(task='sort', label='int4'), 'IPO')
  assert set(found) == {str(seed) for seed in _SEEDS}
  np.testing.assert_allclose(list(found.values()), 0.0, atol=1e-12)
  default = fair._at_default(
    Points(rows).where(task='sort', label='int4'), 'IPO'
  )
  np.testing.assert_allclose(list(default.values()), 0.008, atol=1e-12)
