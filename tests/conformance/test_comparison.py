"""The six files of the authors' code conform, and altered copies do not.

Files of other shapes come from `_Synthetic`, which says in f64 numpy and loops
what the authors' code does, and shares nothing with the package.
"""

import pathlib

import numpy as np
import pytest

from dppo_jax.conformance import comparison, golden

_GOLDEN = pathlib.Path(__file__).parents[1] / 'testdata' / 'golden'
_SMALL = _GOLDEN / 'small_11.npz'


@pytest.fixture(scope='module')
def report():
  return comparison.compare(golden.read_folder(_GOLDEN))


@pytest.fixture(scope='module')
def arrays():
  with np.load(_SMALL, allow_pickle=False) as archive:
    return {name: archive[name] for name in archive.files}


def _compare(folder, arrays):
  np.savez(folder / 'altered.npz', **arrays)
  return comparison.compare(golden.read_folder(folder))


def _deciding(arrays):
  """A completion token with A != 0."""
  return tuple(
    np.argwhere((arrays['mask'] > 0) & (arrays['advantages'] != 0))[0]
  )


def test_the_files_of_the_authors_conform(report):
  assert report.unexplained == []
  assert report.explained == []
  assert report.absent == []
  assert report.conforms
  assert len(report.files) == 6


def test_everything_in_the_files_was_compared(report):
  compared = {'mask': 0, 'loss': 0, 'grad_pi_logits': 0}
  for path in _GOLDEN.glob('*.npz'):
    with np.load(path, allow_pickle=False) as archive:
      for key in filter(lambda key: '/' in key, archive.files):
        compared[key.split('/')[1].removeprefix('cppo_')] += 1
  tallies = report.tallies.values()
  assert sum(t.losses for t in tallies) == compared['loss'] == 660
  assert sum(t.gradients for t in tallies) == compared['grad_pi_logits'] == 300
  assert sum(t.masks > 0 for t in tallies) * 6 == compared['mask'] == 120
  assert {t.masks for t in tallies} == {0, 101}
  assert {t.zero_advantage for t in tallies} == {0, 29}
  assert {a.values for a in report.agreements.values()} == {224, 2048}


def test_errors_are_of_f32_rounding(report):
  for name, tally in report.tallies.items():
    assert tally.loss_error < 2e-6, name
    assert tally.gradient_error < 1e-6, name
    assert tally.gradient_max_error < 1e-6, name
  for agreement in report.agreements.values():
    assert 0 < agreement.error < 2e-6


@pytest.mark.parametrize(
  'key',
  [
    'stable_rl/mask/dppo_topk_kl',
    'stable_rl/mask/pg_no_mask',
    'trl/mask/binary_kl',
    'unirl/cppo_mask/tight',
  ],
)
def test_a_flipped_decision_is_found(tmp_path, arrays, key):
  at = _deciding(arrays)
  mask = arrays[key].copy()
  mask[at] = 1 - mask[at]
  found = _compare(tmp_path, arrays | {key: mask})
  (line,) = found.unexplained
  assert line.startswith(
    f'altered.npz: {key}: row {at[0]}, token {at[1]}: ours'
  )
  assert not found.conforms
  tally = found.tallies[key.split('/')[0], key.split('/')[2]]
  assert (tally.differ, tally.explained, tally.unexplained) == (1, 0, 1)


@pytest.mark.parametrize(
  'key',
  [
    'stable_rl/loss/dppo_binary_tv/C=5/token-mean',
    'stable_rl/loss/ppo/C=1e+09/seq-mean-token-sum-norm',
    'verl/loss/vanilla_dual_clip/anchor=old',
    'verl/loss/sapo/anchor=rollout',
  ],
)
def test_a_scaled_loss_is_found(tmp_path, arrays, key):
  found = _compare(tmp_path, arrays | {key: arrays[key] * np.float32(1 + 3e-5)})
  (line,) = found.unexplained
  assert line.startswith(f'altered.npz: {key}: ours')
  assert 'relative error 3.' in line or 'relative error 2.9' in line


@pytest.mark.parametrize(
  'key',
  [
    'stable_rl/grad_pi_logits/dppo_topk_tv/C=5/token-mean',
    'verl/grad_pi_logits/sapo/anchor=rollout',
  ],
)
def test_a_perturbed_gradient_is_found(tmp_path, arrays, key):
  gradient = arrays[key].copy()
  largest = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
  gradient[largest] *= 1 + 3e-4
  (line,) = _compare(tmp_path, arrays | {key: gradient}).unexplained
  assert line.startswith(f'altered.npz: {key}: relative error')
  assert f'row {largest[0]}, token {largest[1]}, logit {largest[2]}' in line


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_number_that_is_none_is_found(tmp_path, arrays, value):
  loss = 'verl/loss/cispo/anchor=old'
  gradient = 'verl/grad_pi_logits/cispo/anchor=old'
  broken = arrays[gradient].copy()
  broken[0, 0, 0] = value
  found = _compare(
    tmp_path, arrays | {loss: np.float32(value), gradient: broken}
  )
  assert len(found.unexplained) == 2
  assert found.tallies['verl', 'cispo'].loss_error == np.inf


@pytest.mark.parametrize(
  'name', ['rollout_log_probs', 'topk_log_probs', 'topk_kl', 'topk_tv']
)
def test_a_changed_value_is_found(tmp_path, arrays, name):
  # Of a token that counts nowhere: nothing but the value itself can tell.
  changed = arrays[name].copy()
  changed[2, 3] += 1e-4
  lines = _compare(tmp_path, arrays | {name: changed}).unexplained
  assert any(
    line.startswith(f'altered.npz: {name}: row 2, token 3: ours')
    for line in lines
  )


def test_an_unknown_mode_is_found(tmp_path, arrays):
  more = {
    'stable_rl/mask/dppo_hellinger': arrays['mask'],
    'stable_rl/loss/dppo_hellinger/C=5/token-mean': np.float32(0),
    'openrlhf/mask/ppo': arrays['mask'],
  }
  found = _compare(tmp_path, arrays | more)
  assert len(found.unexplained) == 3
  for key, line in zip(more, found.unexplained, strict=True):
    assert line.startswith(f'altered.npz: {key}: unknown mode; known: ')
  assert 'dppo_binary_tv' in found.unexplained[0]
  assert 'unirl' in found.unexplained[2]


@pytest.mark.parametrize(
  ('missing', 'beside'),
  [
    ('stable_rl/mask/ppo', 'stable_rl/loss/ppo/C='),
    (
      'stable_rl/loss/ppo/C=5/token-mean',
      'stable_rl/grad_pi_logits/ppo/C=5/token-mean',
    ),
    ('verl/grad_pi_logits/sapo/anchor=old', 'verl/loss/sapo/anchor=old'),
  ],
)
def test_a_lone_result_is_refused(tmp_path, arrays, missing, beside):
  rest = {key: array for key, array in arrays.items() if key != missing}
  with pytest.raises(golden.GoldenError) as caught:
    _compare(tmp_path, rest)
  assert f'altered.npz: missing {missing}; got {beside}' in str(caught.value)


def test_rows_that_are_not_there_are_skipped_and_named(tmp_path, arrays):
  rest = {
    key: array
    for key, array in arrays.items()
    if not key.startswith('verl/') and '/ppo' not in key
  }
  found = _compare(tmp_path, rest)
  assert found.conforms
  (line,) = found.absent
  assert 'altered.npz: stable_rl ppo, ppo_recompute, ppo_ablation' in line
  assert line.endswith('verl, all of it')


def test_inputs_alone_are_refused(tmp_path, arrays):
  inputs = {key: array for key, array in arrays.items() if '/' not in key}
  with pytest.raises(
    golden.GoldenError, match=r'altered\.npz: missing results'
  ):
    _compare(tmp_path, inputs)


class _Synthetic:
  """A file of another shape, with five modes of the authors' code in f64."""

  def __init__(self, *, shape=(5, 9, 11), num_listed=3, lengths=None, seed=0):
    rng = np.random.default_rng(seed)
    rows, width, vocabulary = shape
    self.mu_logits = 2 * rng.normal(size=shape)
    self.old_logits = self.mu_logits + 0.2 * rng.normal(size=shape)
    self.pi_logits = self.mu_logits + 1.5 * rng.normal(size=shape)
    self.tokens = rng.integers(vocabulary, size=(rows, width))
    self.advantages = np.repeat(rng.normal(size=(rows, 1)), width, axis=1)
    if lengths is None:
      lengths = [width, 0, 1, *rng.integers(1, width, size=rows - 3)]
    self.mask = (np.arange(width) < np.array(lengths)[:, None]).astype(float)
    self.num_listed = num_listed
    self.flipped = []  # Tokens whose TV decision is taken the other way.

  def sampled(self, logits):
    return np.take_along_axis(
      _log_softmax(logits), self.tokens[..., None], axis=-1
    )[..., 0]

  def put_near(self, distance, besides=None):
    """Moves pi so that a token's TV lies `distance` above .15; returns it."""
    log_mu = self.sampled(self.mu_logits)
    for at in zip(*np.nonzero(self.mask), strict=True):
      goal = np.exp(log_mu[at]) + np.sign(self.advantages[at]) * (
        0.15 + distance
      )
      if 0.05 < goal < 0.95 and at != besides:
        others = np.delete(self.pi_logits[at], self.tokens[at])
        self.pi_logits[*at, self.tokens[at]] = np.log(
          np.exp(others).sum() * goal / (1 - goal)
        )
        return at
    raise AssertionError('no token has room')

  def arrays(self):
    log_mu, log_old, log_pi = (
      self.sampled(logits)
      for logits in (self.mu_logits, self.old_logits, self.pi_logits)
    )
    ids, listed, kl, tv = self._top_k()
    found = {
      'mu_logits': self.mu_logits,
      'old_logits': self.old_logits,
      'pi_logits': self.pi_logits,
      'advantages': self.advantages,
      'mask': self.mask,
      'rollout_log_probs': log_mu,
      'old_log_probs': log_old,
      'log_probs': log_pi,
      'topk_log_probs': listed,
      'topk_kl': kl,
      'topk_tv': tv,
    }
    up, away = self.advantages > 0, np.exp(log_pi) > np.exp(log_mu)
    bound = np.where(up, 0.08, 0.05)
    found['trl/mask/topk_kl'] = self.mask * ~((kl > bound) & (up == away))
    keep = self._tv(log_mu, log_pi)
    found['stable_rl/mask/dppo_binary_tv'] = self.mask * keep
    for cap in (5.0, 1e9):
      weight = np.minimum(np.exp(log_pi - log_mu), cap)
      coefficients = self.advantages * weight * keep
      for name, share in self._shares().items():
        key = f'dppo_binary_tv/C={cap:g}/{name}'
        found[f'stable_rl/loss/{key}'] = -(share * coefficients * log_pi).sum()
        gradient = self._gradient(share * coefficients)
        found[f'stable_rl/grad_pi_logits/{key}'] = gradient
    share = self._shares()['token-mean']
    for anchor, log_anchor in (('rollout', log_mu), ('old', log_old)):
      key = f'vanilla_dual_clip/anchor={anchor}'
      ratios = np.exp(log_pi - log_anchor)
      value, coefficients = self._dual_clip(ratios)
      found[f'verl/loss/{key}'] = (share * value).sum()
      found[f'verl/grad_pi_logits/{key}'] = self._gradient(share * coefficients)
      key = f'dppo_tv/anchor={anchor}'
      coefficients = self.advantages * np.minimum(ratios, 20)
      coefficients *= self._tv(log_anchor, log_pi)
      found[f'verl/loss/{key}'] = -(share * coefficients * log_pi).sum()
      found[f'verl/grad_pi_logits/{key}'] = self._gradient(share * coefficients)
    found['unirl/cppo_mask/tight'] = self._cppo(log_mu, log_pi)
    found = {key: np.float32(array) for key, array in found.items()}
    return found | {'tokens': self.tokens, 'topk_ids': ids}

  def _top_k(self):
    mu, pi = _log_softmax(self.mu_logits), _log_softmax(self.pi_logits)
    ids = np.argsort(-mu, axis=-1)[..., : self.num_listed]
    for at in np.ndindex(self.tokens.shape):
      if self.tokens[at] not in ids[at]:
        ids[*at, -1] = self.tokens[at]
    mu, pi = (np.take_along_axis(p, ids, axis=-1) for p in (mu, pi))
    mu_rest, pi_rest = (1 - np.exp(p).sum(-1) for p in (mu, pi))
    kl = (np.exp(mu) * (mu - pi)).sum(-1) + mu_rest * np.log(mu_rest / pi_rest)
    tv = np.abs(np.exp(mu) - np.exp(pi)).sum(-1) + np.abs(mu_rest - pi_rest)
    return ids, mu, kl, tv / 2

  def _tv(self, log_anchor, log_pi):
    gain = np.exp(log_pi) - np.exp(log_anchor)
    keep = np.where(self.advantages > 0, gain <= 0.15, gain >= -0.15)
    for at in self.flipped:
      keep[at] ^= True
    return keep.astype(float)

  def _dual_clip(self, ratios):
    value, coefficients = np.zeros_like(ratios), np.zeros_like(ratios)
    for at in np.ndindex(ratios.shape):
      a, r = self.advantages[at], ratios[at]
      clipped = min(max(r, 0.8), 1.28)
      gain = min(r * a, clipped * a)
      coefficients[at] = r * a if r * a <= clipped * a else 0.0
      if a < 0 and gain < 3 * a:
        gain, coefficients[at] = 3 * a, 0.0
      value[at] = -gain
    return value, coefficients

  def _cppo(self, log_mu, log_pi):
    keep = np.zeros_like(self.mask)
    for b, length in enumerate(self.mask.sum(1).astype(int)):
      divergence = np.abs(np.exp(log_pi[b]) - np.exp(log_mu[b]))[:length]
      if not length:
        continue
      budget = np.clip(np.quantile(divergence, 0.9), 0.005, 0.01)
      spent = earned = 0.0
      for t in range(length):
        weight = 1 - 0.4 * t / max(length - 1, 1)
        away = self.advantages[b, t] * (log_pi[b, t] - log_mu[b, t]) > 0
        threshold = min(0.1, 0.1 + budget * earned - spent)
        keep[b, t] = not (away and weight * divergence[t] > threshold)
        spent += weight * divergence[t]
        earned += weight
    return keep

  def _shares(self):
    lengths = self.mask.sum(1, keepdims=True)
    nonempty = max((lengths > 0).sum(), 1)
    return {
      'token-mean': self.mask / max(lengths.sum(), 1),
      'seq-mean-token-mean': self.mask / np.maximum(lengths, 1) / nonempty,
      'seq-mean-token-sum': self.mask / nonempty,
      'seq-mean-token-sum-norm': self.mask / 16,
    }

  def _gradient(self, coefficients):
    chosen = np.eye(self.mu_logits.shape[-1])[self.tokens]
    pi = np.exp(_log_softmax(self.pi_logits))
    return -coefficients[..., None] * (chosen - pi)


def _log_softmax(logits):
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.fixture(scope='module')
def synthetic():
  return _Synthetic().arrays()


def test_another_shape_conforms(tmp_path, synthetic):
  found = _compare(tmp_path, synthetic)
  assert found.unexplained == []
  assert found.explained == []
  tallies = {name: t for name, t in found.tallies.items() if t != type(t)()}
  assert set(tallies) == {
    ('stable_rl', 'dppo_binary_tv'),
    ('trl', 'topk_kl'),
    ('verl', 'dppo_tv'),
    ('verl', 'vanilla_dual_clip'),
    ('unirl', 'tight'),
  }
  assert tallies['stable_rl', 'dppo_binary_tv'].losses == 8
  # Of every kind, some are masked: the comparison is not of ones.
  completion = synthetic['mask'] > 0
  for key in ('stable_rl/mask/dppo_binary_tv', 'trl/mask/topk_kl'):
    assert 0 < synthetic[key][completion].mean() < 1
  assert 0 < synthetic['unirl/cppo_mask/tight'][completion].mean() < 1


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('distance', [2e-7, -2e-7, 1e-5])
def test_near_a_threshold_either_decision_is_explained(
  tmp_path, distance, flip
):
  file = _Synthetic()
  at = file.put_near(distance)
  file.flipped = [at] if flip else []
  arrays = file.arrays()
  # The token lies near the bound with mu as the old policy only.
  arrays = {k: a for k, a in arrays.items() if k.find('dppo_tv/anchor=old') < 0}
  found = _compare(tmp_path, arrays)
  tally = found.tallies['stable_rl', 'dppo_binary_tv']
  if not flip:
    assert found.conforms
  elif abs(distance) < 1e-6:
    assert found.unexplained == []
    assert (tally.differ, tally.explained, tally.unexplained) == (1, 1, 0)
    (decision,) = [line for line in found.explained if '/mask/' in line]
    assert f'row {at[0]}, token {at[1]}: ours' in decision
    assert decision.endswith('of its threshold')
    assert 'within 2e-07' in decision or 'within 5e-07' in decision
    verl = [line for line in found.explained if 'verl/' in line]
    assert len(verl) == 2  # The loss and its gradient.
  else:
    assert tally.unexplained == 1 + 8 + 8
    assert found.tallies['verl', 'dppo_tv'].unexplained == 2


def test_losses_follow_every_decision_that_was_explained(tmp_path):
  # No single shift of the thresholds gives both of these.
  file = _Synthetic()
  first = file.put_near(2e-7)
  second = file.put_near(-2e-7, besides=first)
  file.flipped = [first, second]
  arrays = {k: a for k, a in file.arrays().items() if 'dppo_tv/' not in k}
  found = _compare(tmp_path, arrays)
  assert found.unexplained == []
  assert found.tallies['stable_rl', 'dppo_binary_tv'].explained == 2


def test_no_completion_token_at_all(tmp_path):
  arrays = _Synthetic(lengths=[0] * 5).arrays()
  # What 0 / 0 gives in their means.
  for key in arrays:
    if '/loss/' in key and 'norm' not in key:
      arrays[key] = np.float32(np.nan)
  found = _compare(tmp_path, arrays)
  assert found.unexplained == []
  (line,) = found.explained
  assert 'no completion token at all' in line


def test_no_advantage_at_all(tmp_path):
  file = _Synthetic()
  file.advantages *= 0
  found = _compare(tmp_path, file.arrays())
  assert found.unexplained == []
  tally = found.tallies['stable_rl', 'dppo_binary_tv']
  assert tally.masks == 0
  assert tally.zero_advantage == file.mask.sum()


def test_one_token_and_one_listed(tmp_path):
  file = _Synthetic(shape=(3, 1, 4), num_listed=1, lengths=[1, 1, 1])
  assert _compare(tmp_path, file.arrays()).unexplained == []


def test_a_cancellation_is_explained_and_no_more(tmp_path):
  file = _Synthetic()
  file.pi_logits = file.mu_logits + 0.05 * (file.pi_logits - file.mu_logits)
  key = 'stable_rl/loss/dppo_binary_tv/C=5/token-mean'
  # Nothing is masked, so the loss is linear in the advantages of a row.
  file.advantages[0] = 1.0
  both = float(file.arrays()[key])
  file.advantages[0] = 0.0
  others = float(file.arrays()[key])
  file.advantages[0] = -others / (both - others)
  arrays = file.arrays()
  assert (arrays['stable_rl/mask/dppo_binary_tv'] == file.mask).all()
  assert abs(arrays[key]) < 1e-6 * abs(others)
  arrays[key] = np.float32(1e-7 * others)
  found = _compare(tmp_path, arrays)
  assert found.unexplained == []
  assert any(
    line.startswith(f'altered.npz: {key}: ours') for line in found.explained
  )
  arrays[key] = np.float32(1e-5 * others)
  (line,) = _compare(tmp_path, arrays).unexplained
  assert line.startswith(f'altered.npz: {key}: ours')
