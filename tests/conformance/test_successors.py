import pathlib

import numpy as np
import pytest

from dppo_jax.conformance import successors
from dppo_jax.conformance.golden import GoldenError

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
    if key not in successors.INPUTS and key != name
  }
  path = _written(tmp_path, **others, **{name: wrong})
  (check,) = successors.compare_file(path)
  assert not check.passes
  text = successors.describe([check])
  assert text.endswith('1 do not conform')
  assert f'changed.npz: {name}: error' in text


def test_files_are_told_apart_by_their_arrays(tmp_path):
  for folder in ('golden', 'golden_successors'):
    for path in (_TESTDATA / folder).glob('small_?1.npz'):
      (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'broken.npz').write_text('no archive')
  newer, older = successors.split_folder(tmp_path)
  assert [path.name for path in newer] == ['small_31.npz']
  assert [path.name for path in older] == ['broken.npz', 'small_11.npz']


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    (dict(topk_ids=None), 'changed.npz: missing topk_ids'),
    (dict(mask=np.ones((2, 2))), r'mask: got shape \(2, 2\), expected'),
    (
      dict(tokens=np.full((4, 9), 99)),
      'tokens: expected integers from 0 to 16',
    ),
    ({'unirl/xyz/loss/eps=1': np.zeros(())}, 'unirl/xyz/loss/eps=1: unknown'),
    ({'unirl/spo/loss/eps=one': np.zeros(())}, "eps='one'; a number"),
  ],
)
def test_what_cannot_be_compared_is_named(tmp_path, changed, message):
  arrays = np.load(_GOLDEN / 'small_31.npz', allow_pickle=False)
  results = dict.fromkeys(set(arrays.files) - set(successors.INPUTS))
  path = _written(tmp_path, **{**results, **changed})
  with pytest.raises(GoldenError, match=message):
    successors.compare_file(path)
