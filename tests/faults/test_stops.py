"""The parts that need no run; `python -m tests.faults.stops` tries all."""

import pytest

from tests.faults import stops

# Real processes and signals: a rare race is shown as a rerun.
pytestmark = pytest.mark.flaky(reruns=1)

_LOG = [f'12:00:00 {text}6 written' for text in stops.PHASES.values()]


def test_a_phase_is_read_up_to_its_line():
  for at, phase in enumerate(stops.PHASES):
    lines = iter(_LOG)
    assert stops.reached(phase, lines)
    assert list(lines) == _LOG[at + 1 :]
    assert not stops.reached(phase, _LOG[:at])


def test_every_phase_is_tried_with_every_signal():
  kinds = [kind for kind, _, _ in stops.trials()]
  for kind in ('SIGKILL', 'SIGINT', 'SIGTERM', 'SIGHUP'):
    assert kinds.count(kind) == len(stops.PHASES)
  assert kinds.count('file too large') == 1
  assert kinds.count('full disk') == len(stops.WRITERS)


def test_the_latest_checkpoint_counts_but_no_unfinished_one(tmp_path):
  assert stops.saved(tmp_path) == -1
  for name in ('2', '10', '12.tmp'):
    (tmp_path / 'checkpoints' / name).mkdir(parents=True)
  assert stops.saved(tmp_path) == 10


@pytest.mark.parametrize(
  ('code', 'err', 'wrong'),
  [
    (1, 'step 0\nerror: x: no space left. Make room there', ''),
    (0, '', 'exit code 0'),
    (1, 'Traceback (most recent call last):\nerror: no space', 'a traceback'),
    (1, 'error: x: it failed', 'no remedy'),
    (1, 'error: make room\nstep 0', 'no remedy'),
  ],
)
def test_a_full_disk_must_end_in_a_line_with_a_remedy(code, err, wrong):
  found = stops.told(code, err)
  assert found.startswith(wrong)
  assert bool(found) == bool(wrong)


def test_the_count_tells_right_and_tried_of_each_kind():
  found = {'SIGKILL': ['', 'lost'], 'SIGINT': ['']}
  assert stops.counted(found) == (
    'SIGKILL: 1 right of 2 tried\nSIGINT: 1 right of 1 tried'
  )
