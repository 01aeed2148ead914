"""The quick ones; `python -m tests.faults.verifiers` tries all."""

import pytest

from tests.faults import verifiers
from tests.support import runs

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)

_QUICK = (
  'raises',
  'exits at once',
  'kills itself',
  'nests',
  'forges null',
  'returns an odd number',
  'says much',
  'half a character',
  'leaves a child outside',
)


def test_every_hostile_verifier_is_found():
  assert len(verifiers.HOSTILE) == 30
  assert set(_QUICK) < set(verifiers.HOSTILE)


def test_hostile_items_cost_only_their_own_reward(tmp_path):
  verifiers.write_module(tmp_path)
  with verifiers.make_pool() as pool:
    wrong = {name: verifiers.hostile(pool, name) for name in _QUICK}
  assert not any(wrong.values()), wrong
  # Killed; the end may take a moment.
  runs.wait(lambda: not verifiers.living(tmp_path))


@pytest.mark.parametrize('name', ['SIGKILL while idle', 'SIGKILL while busy'])
def test_signals_charge_no_innocent_item(tmp_path, name):
  verifiers.write_module(tmp_path)
  assert verifiers.trial(name) == ''
