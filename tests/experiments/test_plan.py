import json

import pytest

from tests.support import runs, tpus

_CONFIG = '--config=configs/tiny.py'


def _plan(*arguments):
  return runs.end(runs.start('plan', *arguments))


def test_shapes_alone_make_a_plan(tmp_path):
  path = tmp_path / 'plan.json'
  code, out, err = _plan(
    _CONFIG, '--topology=gpu:2xh100', f'--json={path}', '--phases=training'
  )
  assert code == 0, err
  assert 'gpu:2xh100: 2 × NVIDIA H100' in out
  assert out.splitlines()[-1] == 'Fits.'
  plan = json.loads(path.read_text())
  assert plan['fits']
  assert [phase['name'] for phase in plan['phases']] == ['training']


def test_what_does_not_fit_ends_with_code_1():
  big = '--config.model.d_ff=2000000000'
  code, out, err = _plan(
    _CONFIG, '--topology=gpu:2xh100', big, '--phases=sampling'
  )
  assert code == 1, err
  assert 'does not fit' in out
  assert out.splitlines()[-1] == 'Does not fit.'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((_CONFIG,), 'error: --topology: missing'),
    ((_CONFIG, '--topology=v5e:9x9'), "unknown 'v5e:9x9'. Known: v5e:2x2"),
    (('--topology=local',), 'error: --config: missing'),
    (
      (_CONFIG, '--topology=gpu:2xh100', '--config.mesh.tensor=3'),
      'does not multiply to the 2 devices',
    ),
  ],
)
def test_a_mistake_is_one_message(arguments, message):
  code, _, err = _plan(*arguments)
  assert code == 1
  assert message in err
  assert 'Traceback' not in err


@tpus.needs_libtpu
def test_a_tpu_is_compiled_for_in_a_child(tmp_path):
  path = tmp_path / 'plan.json'
  code, out, err = _plan(
    _CONFIG,
    '--topology=v5e:2x2',
    '--phases=sampling',
    '--config.model.num_layers=1',
    f'--json={path}',
  )
  assert code == 0, err
  assert 'sampling (compiled in ' in out
  assert 'Compiling sampling for 4 devices' in err
  (phase,) = json.loads(path.read_text())['phases']
  assert phase['compiled']['memory']['arguments'] > 0
