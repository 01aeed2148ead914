import json

import pytest

from dppo_jax.planning import dry_run
from tests.support import runs


def test_a_plan_is_for_devices_that_are_not_here():
  config = '--config=configs/tiny.py'
  four = '--config.mesh.fsdp=2', '--config.mesh.tensor=2'
  for flags, count in ((('--num_devices=2',), 2), (four, 4)):
    code, out, err = runs.end(runs.start('train', config, '--dry_run', *flags))
    assert code == 0, err
    assert f'devices            {count}, mesh ' in out


def test_the_plan_counts_tokens():
  with runs.quick_compilation():
    text = dry_run.describe(dry_run.examine(runs.experiment()))
  for line in (
    'train steps        6 of 2 updates',
    'microbatches       1 per update',
    'completions        32 per step (8 prompts × 4)',
    'lengths            completions of 7 tokens, prompts of 6, at most',
    'sampled tokens     at most 224 per step, 1,344 in all',
    'trained tokens     at most 416 per step',
    '  parameters       25.4 KiB',
  ):
    assert line in text.splitlines()


def _show(*arguments, **overrides):
  settings = runs.config(mesh__data=1, **overrides)
  with runs.quick_compilation():
    return dry_run.show(settings, dry_run.jax.device_count(), *arguments)


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
  monkeypatch.setattr(dry_run.jax, 'device_count', lambda: 1)


def test_only_what_differs_is_shown():
  lines = _show(sampling__stop_strings=('a',)).splitlines()
  count = int(lines[0].split(' keys differ from ')[0])
  shown = lines[1 : 1 + count]
  assert lines[1 + count] == ''
  for change in (
    ('num_steps', '200', '6'),
    ('data.task', "'sort'", "'running_sum'"),
    ('sampling.stop_strings', '[]', "['a']"),
  ):
    name, before, after = change
    (line,) = (x for x in shown if x.split()[0] == name)
    assert line.endswith(f'  {before} -> {after}')
  # A default of a tuple is equal to the list that was recorded.
  assert not any('lora.targets' in line for line in shown)


def test_a_plan_is_json_on_request(tmp_path):
  found = json.loads(_show('-'))
  assert found['differs']['num_steps'] == [200, 6]
  assert found['config']['trust_region']['delta_low'] == 0.2
  assert found['mesh']['tensor'] == 1
  assert 0 < found['memory']['parameters'] < found['peak_bytes']
  path = tmp_path / 'plan.json'
  assert 'keys differ from' in _show(str(path))
  assert json.loads(path.read_text()) == found
  with pytest.raises(ValueError, match=r'--plan_json: cannot write .*/no/plan'):
    _show(str(tmp_path / 'no/plan.json'))
