"""A rule of one's own, with a threshold of its own: three edits.

They are made in a copy of the package, as the docs print them, and a config
that uses the new rule is built from the copy.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# File -> the text that a new one goes before, and the new text.
_EDITS = {
  'thresholds.py': (
    '  tau_low: float',
    '  floor: float = field(metadata=number(0.0, 0.0, 1.0))\n',
  ),
  'ops/trust_regions.py': (
    'TRUST_REGIONS: Mapping',
    '''
def keep_likely(signals: Signals, bounds: Thresholds) -> Array:
  """M = 0 where pi falls below `floor`."""
  return 1.0 - (jnp.exp(signals.log_probs) < bounds.floor)


''',
  ),
  'configs/default.py': (
    '    tau_low=',
    '    floor=0.01,  # keep_likely: least probability that may be trained.\n',
  ),
}
_ROW = (
  "  'keep_likely': TrustRegion(keep_likely, ('floor',), 'token', False),\n"
)

_PROGRAM = """
import dataclasses

import jax.numpy as jnp

import dppo_jax
from dppo_jax.configs import tiny
from dppo_jax.ops import trust_regions
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.config.checks import ranges

print(dppo_jax.__file__)
config = tiny.get_config()
config.trust_region.update(rule='keep_likely', floor=0.3)
bounds = build_experiment(config, 1).loss.bounds
assert bounds == dataclasses.replace(bounds, floor=0.3)
pi = jnp.log(jnp.array([[0.29, 0.31, 0.1]]))
signals = trust_regions.Signals(
  advantages=jnp.array([[-1.0, -1.0, 1.0]]),
  log_probs=pi,
  anchor_log_probs=jnp.log(jnp.full((1, 3), 0.5)),
  divergence=jnp.zeros((1, 3)),
  mask=jnp.ones((1, 3), bool),
)
kept = trust_regions.keep_weights('keep_likely', signals, bounds)
assert kept.tolist() == [[0.0, 1.0, 1.0]], kept
opened = trust_regions.open_thresholds()
kept = trust_regions.keep_weights('keep_likely', signals, opened)
assert kept.tolist() == [[1.0, 1.0, 1.0]], kept
config.trust_region.floor = 1.5
problems = list(ranges.range_problems(config.to_dict()))
print(*problems)
"""


def test_a_rule_with_a_threshold_is_three_edits(tmp_path):
  copy = tmp_path / 'dppo_jax'
  shutil.copytree(_ROOT / 'dppo_jax', copy, symlinks=False)
  for name, (before, new) in _EDITS.items():
    text = (copy / name).read_text()
    assert text.count(before) == 1
    if 'TRUST_REGIONS' in before:  # The function and, right below it, its row.
      start = text.index('{\n', text.index(before)) + 2
      text = text[:start] + _ROW + text[start:]
    (copy / name).write_text(text.replace(before, new + before))
  done = subprocess.run(
    [sys.executable, '-c', _PROGRAM],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(tmp_path), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  where, problem = done.stdout.splitlines()
  assert where.startswith(str(tmp_path))
  assert problem == (
    'trust_region.floor: got 1.5; a number at least 0 and at most 1.'
  )


def test_the_docs_print_these_edits():
  page = (_ROOT / 'docs/concepts/trust_regions.md').read_text()
  for _, new in _EDITS.values():
    assert textwrap.dedent(new).strip() in page
  assert _ROW.strip() in page
