import pathlib

import numpy as np
import pytest

from dppo_jax.conformance import successor_files
from dppo_jax.conformance.golden import GoldenError

_TESTDATA = pathlib.Path(__file__).parents[1] / 'testdata'
_GOLDEN = _TESTDATA / 'golden_successors'


def test_files_are_told_apart_by_their_arrays(tmp_path):
  for folder in ('golden', 'golden_successors'):
    for path in (_TESTDATA / folder).glob('small_?1.npz'):
      (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'broken.npz').write_text('no archive')
  newer, older = successor_files.split_folder(tmp_path)
  assert [path.name for path in newer] == ['small_31.npz']
  assert [path.name for path in older] == ['broken.npz', 'small_11.npz']


@pytest.mark.parametrize(
  ('names', 'mine'),
  [
    (['mu_logits', 'unirl/drpo/loss/eps=1'], True),
    (['mu_logits', 'exact_kl'], True),
    (['mu_logits', 'centring/loss/tis/topk'], True),  # A name to complain of.
    (['mu_logits', 'old_logits', 'predictive/direction/exact'], False),
    (['mu_logits', 'stable_rl/mask/ppo'], False),
    (['x'], False),
  ],
)
def test_a_format_is_known_by_its_names(names, mine):
  arrays = dict.fromkeys(names, np.zeros(1))
  assert successor_files.is_of_successors(arrays) == mine


def test_every_array_of_the_captured_files_is_known():
  for path in _GOLDEN.glob('*.npz'):
    arrays = successor_files.read_file(path)
    assert len(arrays) > 6


def test_names():
  parse = successor_files.parse
  assert parse('unirl/drpo/loss/eps=12.5') == (('unirl', 'drpo', 'loss'), 12.5)
  keep = parse('predictive/keep/exact_tv/delta=.1')
  assert keep == (('predictive', 'keep', 'exact_tv'), 0.1)
  assert parse('exact_kl').parts == ('exact_kl',)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    (
      'centring/loss/tis/topk',
      r'unknown result; expected score_centering/loss',
    ),
    ('score_centering/loss/tis', r'expected score_centering/loss\|grad_pi_'),
    ('score_centering/loss/tis/some', r'/none\|tis\|mis/topk\|full\.$'),
    ('score_centering/loss/cap/topk', 'unknown result; expected score_cent'),
    ('score_centering/lost/tis/topk', 'unknown result; expected score_cent'),
    ('predictive', r'expected predictive/direction/exact\|aggregated_tail'),
    ('predictive/direction/tail', 'or predictive/keep/exact_kl'),
    ('predictive/keep/exact_kl', 'unknown result; expected predictive/dir'),
    ('predictive/keep/topk_kl/delta=.1', 'unknown result; expected predict'),
    ('predictive/keep/exact_kl/eps=.1', 'unknown result; expected predictive'),
    ('unirl/xyz/loss/eps=1', r'expected unirl/drpo\|spo/loss'),
    ('exact_kl/delta=1', r'unknown result; expected exact_kl\|exact_tv'),
    ('unirl/spo/loss/eps=one', "got eps='one'; expected a finite number above"),
    ('unirl/spo/loss/eps=0', "got eps='0'; expected a finite number above 0"),
    ('unirl/spo/loss/eps=inf', "got eps='inf'; expected a finite number"),
    ('predictive/keep/exact_kl/delta=-1', "got delta='-1'; .* from 0 to inf"),
    ('predictive/keep/exact_tv/delta=15', "got delta='15'; .* from 0 to 1"),
  ],
)
def test_an_unknown_name_is_refused(name, message):
  with pytest.raises(GoldenError, match=message) as refused:
    successor_files.parse(name)
  assert str(refused.value).startswith(f'{name}: ')


def _refusal(tmp_path, **changed):
  """Lines of the error of small_31.npz, B, T, V, K = 4, 9, 17, 4, changed."""
  arrays = dict(np.load(_GOLDEN / 'small_31.npz', allow_pickle=False))
  arrays = {
    k: v
    for k, v in {**arrays, **changed}.items()
    if v is not None and k in (*successor_files.INPUTS, *changed)
  }
  np.savez(tmp_path / 'changed.npz', **arrays)
  with pytest.raises(GoldenError) as refused:
    successor_files.read_file(tmp_path / 'changed.npz')
  return str(refused.value)


_ONES = np.ones((4, 9))


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    (dict(topk_ids=None), 'missing topk_ids; got mu_logits, pi_logits, tokens'),
    (dict(mu_logits=_ONES), 'mu_logits: got shape (4, 9), expected three axes'),
    (dict(mask=_ONES[:2]), 'mask: got shape (2, 9), expected (4, 9)'),
    (dict(pi_logits=np.ones((4, 9, 16))), 'got shape (4, 9, 16), expected (4,'),
    (
      dict(tokens=np.full((4, 9), 99)),
      'got 99 to 99, expected integers from 0',
    ),
    (dict(tokens=_ONES), 'tokens: got 1 to 1, expected integers from 0 to 16'),
    (dict(mask=0 * _ONES), 'mask: got no completion token'),
    (dict(mask=2 * _ONES), 'mask: got other values, expected 0 and 1 only'),
    (dict(advantages=np.nan * _ONES), 'advantages: got NaN or infinity'),
    (
      dict(topk_ids=np.zeros((4, 9, 0), int)),
      'topk_ids: got K = 0, expected 1 to V = 17',
    ),
    (
      dict(topk_ids=np.zeros((4, 9, 2), int)),
      'topk_ids: got an id twice at a position',
    ),
    ({}, 'no results; expected some'),
    (dict(exact_tv=100 * _ONES), 'got 100 to 100, expected probabilities'),
    (dict(exact_kl=-_ONES), 'exact_kl: got -1 to -1, expected nats'),
    (dict(exact_kl=_ONES[..., None]), 'got shape (4, 9, 1), expected (4, 9)'),
    (dict(exact_tv=np.inf * _ONES), 'exact_tv: got NaN or infinity'),
    (
      {'predictive/keep/exact_kl/delta=1': 0.5 * _ONES},
      'delta=1: got other values, expected 0 and 1 only',
    ),
    (
      {'score_centering/loss/tis/topk': _ONES},
      'loss/tis/topk: got shape (4, 9), expected (), which is []',
    ),
    (
      {'unirl/drpo/grad_pi_logits/eps=1': _ONES},
      'eps=1: got shape (4, 9), expected (4, 9, 17), which is [B, T, V]',
    ),
  ],
)
def test_what_cannot_be_compared_is_named(tmp_path, changed, message):
  text = _refusal(tmp_path, **changed)
  assert text.startswith('changed.npz: ')
  assert message in text


def test_all_problems_are_told_at_once(tmp_path):
  text = _refusal(tmp_path, mask=2 * _ONES, exact_tv=2 * _ONES)
  assert len(text.splitlines()) == 2
  text = _refusal(tmp_path, mask=_ONES[:1], exact_tw=_ONES, exact_tv=_ONES[:1])
  assert len(text.splitlines()) == 3


@pytest.mark.parametrize('kept', [0, 100, 3000])
def test_a_damaged_archive_is_named(tmp_path, kept):
  whole = (_GOLDEN / 'small_31.npz').read_bytes()
  (tmp_path / 'cut.npz').write_bytes(whole[:kept])
  with pytest.raises(GoldenError, match=r'cut\.npz: not an \.npz file'):
    successor_files.read_file(tmp_path / 'cut.npz')
