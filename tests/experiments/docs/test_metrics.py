from fnmatch import fnmatchcase

from dppo_jax.experiments.docs import metrics


def _fits(name, pattern):
  """Whether a name may be one that the code makes up by a pattern."""
  return name == pattern or fnmatchcase(name, pattern.replace('…', '*'))


def test_every_metric_of_the_code_is_explained_and_no_other():
  code = metrics.names_in_code()
  for pattern in code:
    assert any(_fits(name, pattern) for name in metrics.METRICS), pattern
  for name in metrics.METRICS:
    assert any(_fits(name, pattern) for pattern in code), name


def test_every_metric_has_unit_and_meaning():
  for name, row in metrics.METRICS.items():
    assert row.unit, name
    assert row.meaning, name
    assert not row.meaning.endswith('.'), name
