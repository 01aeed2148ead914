import json

import pytest

from dppo_jax.analysis.jobs import job as job_lib
from dppo_jax.configs import presets, tiny
from dppo_jax.runtime.storage import code_version


def _job(seed=0, **overrides):
  flat = {path.replace('__', '.'): v for path, v in overrides.items()}
  return job_lib.make_job('a', tiny.get_config(), flat, seed)


def test_a_job_holds_every_key_and_the_base_stays():
  base = tiny.get_config()
  before = base.to_json()
  made = job_lib.make_job('tv', base, presets.PRESETS['dppo_binary_tv'], 4)
  assert made.seed == 4
  assert made.config['trust_region']['divergence'] == 'binary_tv'
  assert made.config['data']['task'] == 'running_sum'
  assert base.to_json() == before


@pytest.mark.parametrize(
  ('path', 'value'),
  [('trust_region.detla_low', 0.1), ('num_steps', 'many'), ('nothing', 1)],
)
def test_an_override_that_cannot_be_is_named(path, value):
  with pytest.raises(ValueError, match=rf'^a: cannot set {path}='):
    job_lib.make_job('a', tiny.get_config(), {path: value}, 0)


def test_the_key_names_all_that_decides_a_number():
  first = job_lib.key(_job(), 'code')
  assert first == job_lib.key(_job(), 'code')
  assert first != job_lib.key(_job(), 'other code')
  for change in (
    {'seed': 1},
    {'trust_region__delta_low': 0.3},
    {'ledger__every_n_steps': 2},  # No number, but a part of what is kept.
  ):
    assert first != job_lib.key(_job(**change), 'code'), change


def test_the_key_ignores_settings_that_do_not_affect_numbers():
  first = job_lib.key(_job(), 'code')
  for change in (
    {'compilation_cache': '/elsewhere'},
    {'sft__cache': '/elsewhere'},
    {'writers__tensorboard': True},
    {'checkpoints__keep': 5},
  ):
    assert first == job_lib.key(_job(**change), 'code'), change
  named = job_lib.Job(name='b', config=_job().config)
  assert first == job_lib.key(named, 'code')


def test_the_code_version_is_of_code_that_runs_train(monkeypatch, tmp_path):
  for path, text in {
    'dppo_jax/a.py': '1',
    'dppo_jax/planning/b.py': '2',
    'dppo_jax/analysis/jobs/job.py': '3',
    'experiments/c.py': '4',
  }.items():
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
  monkeypatch.setattr(code_version, 'ROOT', tmp_path)
  before = job_lib.code_version()
  (tmp_path / 'dppo_jax/planning/b.py').write_text('other')
  (tmp_path / 'experiments/c.py').write_text('other')
  assert job_lib.code_version() == before
  (tmp_path / 'dppo_jax/a.py').write_text('other')
  assert job_lib.code_version() != before


def test_incomplete_facts_are_no_result(tmp_path):
  made = _job()
  facts = {'wall_s': 1.0, 'cpu_s': 2.0, 'device': 'x'}
  for text in ('', '{', '[]', '{"wall": 1}'):
    (tmp_path / job_lib.FACTS).write_text(text)
    assert job_lib.finished(made, tmp_path) is None
  (tmp_path / job_lib.FACTS).write_text(json.dumps(facts))
  outcome = job_lib.finished(made, tmp_path)
  assert outcome is not None
  assert (outcome.error, outcome.cpu_s) == ('', 2.0)
  assert job_lib.finished(made, tmp_path / 'nowhere') is None
