import json
import pathlib

import pytest

from dppo_jax.configs import default
from dppo_jax.runtime.storage import metrics_log, workdir
from tests.support import runs


def test_a_folder_is_made_and_left_clean(tmp_path):
  folder = workdir.open_workdir(tmp_path / 'a' / 'b')
  assert list(folder.iterdir()) == []


@pytest.mark.parametrize('named', ['gs://bucket/run', 's3://b', 'gs:/bucket'])
def test_an_address_is_no_folder(tmp_path, monkeypatch, named):
  monkeypatch.chdir(tmp_path)
  for call in (workdir.open_workdir, workdir.read_config):
    with pytest.raises(ValueError, match=r'^--workdir: got .*Mount the b'):
      call(pathlib.Path(named))
  assert list(tmp_path.iterdir()) == []


def test_files_of_no_run_are_refused(tmp_path):
  folder = tmp_path / 'thesis'
  workdir.check_empty(folder)  # It will be made.
  folder.mkdir()
  for name in ('.hidden', 'slurm.log', 'job.out'):
    (folder / name).touch()
  workdir.check_empty(folder)
  for name in 'cdba':
    (folder / f'{name}.tex').touch()
  with pytest.raises(ValueError, match=r'\(a.tex, b.tex, c.tex and 1 more\)'):
    workdir.check_empty(folder)


@pytest.mark.parametrize('name', ['config.json', 'lock', 'metrics.jsonl'])
def test_a_run_may_have_files_beside_it(tmp_path, name):
  (tmp_path / name).touch()
  (tmp_path / 'notes.md').touch()
  workdir.check_empty(tmp_path)


def test_a_folder_under_a_file_is_refused(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=r'^--workdir: .*/run is not writable'):
    workdir.open_workdir(tmp_path / 'file' / 'run')


def test_a_lock_is_held_once_and_released(tmp_path):
  with workdir.locked(tmp_path):
    with pytest.raises(ValueError, match='another process is training'):
      with workdir.locked(tmp_path):
        pytest.fail('two hold it')
  with workdir.locked(tmp_path):
    pass


def _begun(folder, config):
  workdir.check_config(folder, config)
  (folder / workdir.CHECKPOINTS / '0').mkdir(parents=True)


def test_differences_are_listed(tmp_path):
  _begun(tmp_path, {'a': {'x': 1, 'old': 2}, 'inf': float('inf')})
  changed = {'a': {'x': 3, 'new': 4}, 'inf': float('inf')}
  with pytest.raises(ValueError, match='another config') as caught:
    workdir.check_config(tmp_path, changed)
  assert str(caught.value).splitlines()[1:-1] == [
    "  a.new: 'absent' -> 4",
    "  a.old: 2 -> 'absent'",
    '  a.x: 1 -> 3',
  ]
  assert workdir.read_config(tmp_path)['a'] == {'x': 1, 'old': 2}


def test_free_keys_are_free_and_exist(tmp_path):
  # As a run holds it: lists, where a config may have tuples.
  config = json.loads(default.get_config().to_json())
  _begun(tmp_path, config)
  for path in workdir.FREE_KEYS:
    section, _, key = path.rpartition('.')
    (config[section] if section else config)[key] = 'other'
  workdir.check_config(tmp_path, config)
  assert workdir.read_config(tmp_path) == config


def test_a_run_without_a_checkpoint_may_change(tmp_path):
  workdir.check_config(tmp_path, {'a': 1})
  workdir.check_config(tmp_path, {'a': 2})
  assert workdir.read_config(tmp_path) == {'a': 2}


def test_a_missing_or_damaged_config_says_so(tmp_path):
  with pytest.raises(ValueError, match=r'holds no run: it has no config\.json'):
    workdir.read_config(tmp_path)
  _begun(tmp_path, {'a': 1})
  (tmp_path / workdir.CONFIG).write_text('{"a":')
  with pytest.raises(ValueError, match=r'config\.json is damaged'):
    workdir.check_config(tmp_path, {'a': 1})


def test_a_recorded_config_comes_back(tmp_path):
  settings = runs.config(optimizer__clip_norm=float('inf'), seed=3)
  workdir.check_config(tmp_path, settings.to_dict())
  restored = workdir.overlay(
    default.get_config(), workdir.read_config(tmp_path)
  )
  assert restored.to_dict() == settings.to_dict()


def test_other_keys_than_the_defaults_are_refused():
  recorded = json.loads(json.dumps(runs.config().to_dict()))
  recorded['model']['num_layer'] = recorded['model'].pop('num_layers')
  with pytest.raises(ValueError, match='another version') as caught:
    workdir.overlay(default.get_config(), recorded)
  assert '  model.num_layer: unknown\n  model.num_layers: missing\n' in str(
    caught.value
  )


_PLACES = {
  'num_steps': 10,
  'data': {
    'files': '/a/x.jsonl',
    'tokenizer': '/a/model',
    'mixture': [['math', '/a/*.json', 1.0]],
  },
  'model': {'pretrained': ''},
  'sampling': {'lag': 0},
}


def _changed(**sections):
  changed = json.loads(json.dumps(_PLACES))
  for section, value in sections.items():
    if isinstance(value, dict):
      changed[section].update(value)
    else:
      changed[section] = value
  return changed


def test_paths_may_change_where_their_content_is_known(tmp_path):
  _begun(tmp_path, _PLACES)
  spelled = _changed(data={'files': '/a//x.jsonl', 'tokenizer': '/a/model/'})
  assert workdir.check_config(tmp_path, spelled) == [
    "data.files: '/a/x.jsonl' -> '/a//x.jsonl'",
    "data.tokenizer: '/a/model' -> '/a/model/'",
  ]
  moved = _changed(
    data={
      'files': '/b/x.jsonl',
      'tokenizer': '/b',
      'mixture': [['math', '/b/*.json', 1.0]],
    }
  )
  with pytest.raises(ValueError, match=r'data\.files: .* -> ./b/x\.jsonl'):
    workdir.check_config(tmp_path, moved)
  (tmp_path / workdir.INPUTS).write_text('{}')
  assert len(workdir.check_config(tmp_path, moved)) == 3
  assert workdir.read_config(tmp_path) == moved


@pytest.mark.parametrize(
  'change',
  [
    {'model': {'pretrained': '/a/model'}},
    {'data': {'tokenizer': ''}},
    {'data': {'mixture': [['math', '/a/*.json', 2.0]]}},
  ],
)
def test_settings_other_than_paths_may_not_change(tmp_path, change):
  _begun(tmp_path, _PLACES)
  (tmp_path / workdir.INPUTS).write_text('{}')
  with pytest.raises(ValueError, match='another config'):
    workdir.check_config(tmp_path, _changed(**change))


def test_more_steps_are_allowed_by_extend(tmp_path):
  _begun(tmp_path, _PLACES)
  longer = _changed(num_steps=20)
  with pytest.raises(ValueError, match='add --extend to go on to step 20'):
    workdir.check_config(tmp_path, longer)
  other = _changed(num_steps=20, seed=7)
  with pytest.raises(ValueError, match=r'10 -> 20\n  seed.*\n.* by --ext'):
    workdir.check_config(tmp_path, other)
  told = workdir.check_config(tmp_path, longer, extend=True)
  assert told == ['num_steps: 10 -> 20']
  with pytest.raises(ValueError, match=r'num_steps=20, now 10; .* not short'):
    workdir.check_config(tmp_path, _PLACES, extend=True)
  both = _changed(num_steps=30, sampling={'top_k': 1})
  with pytest.raises(ValueError, match=r'sampling\.top_k') as caught:
    workdir.check_config(tmp_path, both, extend=True)
  assert 'num_steps' not in str(caught.value)


def test_a_run_that_samples_ahead_is_not_extended(tmp_path):
  _begun(tmp_path, _changed(sampling={'lag': 2}))
  longer = _changed(num_steps=20, sampling={'lag': 2})
  with pytest.raises(ValueError, match=r'^--extend: .* sampling\.lag=2'):
    workdir.check_config(tmp_path, longer, extend=True)


def _records(folder, *steps):
  lines = [json.dumps({'step': step, 'rewards/mean': 0.5}) for step in steps]
  path = folder / metrics_log.METRICS_FILE
  path.write_text(''.join(line + '\n' for line in lines))
  return path.read_bytes()


@pytest.mark.parametrize('with_config', [True, False])
@pytest.mark.parametrize('left', [[], ['damaged-4'], ['4.orbax-tmp-1'], ['²']])
def test_records_without_checkpoints_are_never_overwritten(
  tmp_path, with_config, left
):
  workdir.check_config(tmp_path, {'a': 1})
  for name in left:
    (tmp_path / workdir.CHECKPOINTS / name).mkdir(parents=True)
  before = _records(tmp_path, 0, 1, 4)
  if not with_config:
    (tmp_path / workdir.CONFIG).unlink()
  with pytest.raises(ValueError, match=r'records of 4 steps and no whole'):
    workdir.check_config(tmp_path, {'a': 1})
  assert (tmp_path / metrics_log.METRICS_FILE).read_bytes() == before


def test_a_run_without_a_step_starts_again(tmp_path):
  workdir.check_config(tmp_path, {'a': 1})
  _records(tmp_path, 0)
  workdir.check_config(tmp_path, {'a': 2})
  assert workdir.read_config(tmp_path) == {'a': 2}


def test_checkpoints_without_a_config_are_refused(tmp_path):
  _begun(tmp_path, {'a': 1})
  (tmp_path / workdir.CONFIG).unlink()
  with pytest.raises(ValueError, match=r'checkpoints and no config\.json'):
    workdir.check_config(tmp_path, {'a': 1})
  assert not (tmp_path / workdir.CONFIG).exists()
