"""How many examples the property tests draw: profiles `ci` and `thorough`.

Both draw the same ones in every run, so that no run fails by chance. `make
test-thorough` sets DPPO_JAX_TESTS=thorough.
"""

import os

from hypothesis import HealthCheck, settings

THOROUGH = os.environ.get('DPPO_JAX_TESTS') == 'thorough'
_FACTOR = 20
# Neither by chance nor by the clock of a busy machine does a run fail.
_STEADY = dict(
  derandomize=True,
  deadline=None,
  database=None,
  suppress_health_check=(HealthCheck.too_slow,),
)


def load_profile():
  """Makes a profile the default: of properties that say no number."""
  settings.register_profile('ci', max_examples=100, **_STEADY)
  settings.register_profile('thorough', max_examples=2000, **_STEADY)
  settings.load_profile('thorough' if THOROUGH else 'ci')


def examples(count):
  """Settings of a property whose examples compile or are slow.

  Args:
    count: examples in CI; the thorough tests draw twenty times as many.
  """
  return settings(max_examples=count * (_FACTOR if THOROUGH else 1), **_STEADY)
