import json
import math
import pathlib

import numpy as np
import pytest

from dppo_jax.conformance import successor_files, successors

_TESTDATA = pathlib.Path(__file__).parents[1] / 'testdata'
_GOLDEN = _TESTDATA / 'golden_successors'


def test_every_result_conforms():
  checks = successors.compare_file(_GOLDEN / 'small_31.npz')
  arrays = np.load(_GOLDEN / 'small_31.npz', allow_pickle=False)
  assert len(checks) == len(arrays.files) - 6  # All but the inputs.
  assert [check.name for check in checks if not check.passes] == []
  text = successors.describe(checks)
  assert text.endswith('all conform')
  assert 'score_centering/grad_pi_logits/mis/topk' in text


def _written(tmp_path, name='small_31', **changed):
  arrays = dict(np.load(_GOLDEN / f'{name}.npz', allow_pickle=False))
  arrays |= changed
  kept = {k: v for k, v in arrays.items() if v is not None}
  np.savez(tmp_path / 'changed.npz', **kept)
  return tmp_path / 'changed.npz'


@pytest.mark.parametrize(
  'name',
  [
    'score_centering/loss/tis/topk',
    'score_centering/grad_pi_logits/mis/full',
    'unirl/drpo/grad_pi_logits/eps=0.15',
    'unirl/spo/loss/eps=1',
    'predictive/direction/uniform_tail',
    'predictive/keep/exact_kl/delta=0.05',
    'exact_tv',
  ],
)
def test_another_value_does_not_conform(tmp_path, name):
  arrays = np.load(_GOLDEN / 'small_31.npz', allow_pickle=False)
  wrong = 1.0 - arrays[name] if 'keep' in name else 1.001 * arrays[name] + 1e-4
  # Nothing but this result and the inputs, to be quick.
  others = {
    key: None
    for key in arrays.files
    if key not in successor_files.INPUTS and key != name
  }
  path = _written(tmp_path, **others, **{name: wrong})
  (check,) = successors.compare_file(path)
  assert not check.passes
  text = successors.describe([check])
  assert text.endswith('1 do not conform')
  assert f'changed.npz: {name}: error' in text


def test_a_loss_that_should_be_nothing_does_not_conform(tmp_path):
  name = 'score_centering/loss/tis/topk'
  arrays = np.load(_GOLDEN / 'small_31.npz', allow_pickle=False)
  others = dict.fromkeys(set(arrays.files) - set(successor_files.INPUTS))
  path = _written(tmp_path, **{**others, name: np.zeros(())})
  (check,) = successors.compare_file(path)
  assert check.error == math.inf
  found = json.loads(json.dumps(successors.to_json([check]), allow_nan=False))
  assert found['conforms'] is False
  assert found['successors'] == [
    dict(file='changed.npz', name=name, error='inf', bar=1e-5, passes=False)
  ]


def _unseen(seed, shape, k):
  """Inputs of other sizes, and some results, from their definitions in f64."""
  rng = np.random.default_rng(seed)
  mu_logits = 2 * rng.normal(size=shape)
  logits = [mu_logits, mu_logits + 0.5 * rng.normal(size=shape)]
  logits = [z.astype(np.float32).astype(float) for z in logits]
  log_mu, log_pi = (
    z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in logits
  )
  mu, pi = np.exp(log_mu), np.exp(log_pi)
  tokens = rng.integers(0, shape[-1], shape[:2])
  own = np.eye(shape[-1])[tokens]
  pi_y, mu_y = (pi * own).sum(-1), (mu * own).sum(-1)
  rate = pi_y - mu_y + (pi * (mu - pi)).sum(-1)
  kl = (mu * (log_mu - log_pi)).sum(-1)
  a = rng.normal(size=shape[:2]).astype(np.float32)
  weight = np.minimum(pi_y / mu_y, 2.0)[..., None]
  c = mu * np.minimum(pi / mu, 2.0)
  rest = c + (weight - c.sum(-1, keepdims=True)) * pi
  return {
    'mu_logits': logits[0],
    'pi_logits': logits[1],
    'tokens': tokens,
    'advantages': a,
    'mask': np.ones(shape[:2]),
    'topk_ids': np.argsort(-mu, -1)[..., :k],
    'exact_kl': kl,
    'exact_tv': 0.5 * np.abs(mu - pi).sum(-1),
    'predictive/direction/exact': rate,
    'predictive/keep/exact_kl/delta=0.05': 1 - ((kl > 0.05) & (a * rate > 0)),
    'score_centering/grad_pi_logits/tis/full': -a[..., None]
    * (weight * own - rest)
    / tokens.size,
  }


@pytest.mark.parametrize(
  ('shape', 'k'), [((1, 3, 211), 33), ((2, 2, 11), 11), ((3, 5, 2), 1)]
)
def test_files_of_any_size_conform(tmp_path, shape, k):
  path = tmp_path / 'unseen.npz'
  np.savez(path, **_unseen(0, shape, k))
  checks = successors.compare_file(path)
  assert len(checks) == 5
  assert [check for check in checks if not check.passes] == []
