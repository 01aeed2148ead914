import pytest

from dppo_jax.runtime.config.checks import support
from tests.support import runs

_ON = dict(sampling__support_top_k=5)


def _problems(**overrides):
  return list(support.find_problems(runs.config(**overrides).to_dict()))


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      dict(sampling__support_top_p=0.9),
      'sampling.support_top_p: got 0.9, and sampling.support_top_k=0 records no'
      ' tokens, so that the trainer would score another law',
    ),
    (
      dict(sampling__support_min_p=0.1),
      'sampling.support_min_p: got 0.1, and sampling.support_top_k=0 records',
    ),
    (
      dict(trust_region__predictive_tail='uniform', **_ON),
      "trust_region.predictive_tail: got 'uniform', which spreads the mass",
    ),
  ],
)
def test_what_cannot_be_replayed_is_refused_by_name(overrides, message):
  (problem,) = _problems(**overrides)
  assert problem.startswith(message)


def test_a_recorded_support_is_fine():
  assert not _problems()
  assert not _problems(
    sampling__support_top_p=0.9, sampling__support_min_p=0.1, **_ON
  )


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('support_top_p', 0.0, 'a number above 0 and at most 1'),
    ('support_min_p', 1.5, 'a number at least 0 and at most 1'),
    ('support_top_k', -1, 'a whole number of at least 0'),
    ('support_top_k', 1000, 'the vocabulary has'),
  ],
)
def test_a_filter_that_leaves_no_token_is_refused(key, value, message):
  with pytest.raises(ValueError, match=f'sampling.{key}: got .*{message}'):
    runs.experiment(runs.config(**{f'sampling__{key}': value}))
