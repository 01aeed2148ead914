"""The command: its tables, its JSON, its exit codes and its errors."""

import json
import pathlib
import shutil

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from dppo_jax.conformance import successor_files
from dppo_jax.experiments import conformance
from dppo_jax.runtime import cli
from tests.support import runs

_ROOT = pathlib.Path(__file__).parents[2]
_SMALL = _ROOT / 'tests' / 'testdata' / 'golden' / 'small_12.npz'


@pytest.fixture
def command(capsys):
  """Runs the command on a folder: exit code, what it printed, its errors."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

  def run(**given):
    given = {name: str(value) for name, value in given.items()}
    with flagsaver.flagsaver(**given):
      code = cli.guard(conformance.main, ['conformance'])
    return code, *capsys.readouterr()

  return run


def test_files_that_conform(tmp_path, command):
  shutil.copy(_SMALL, tmp_path)
  code, out, err = command(golden=tmp_path, json=tmp_path / 'report.json')
  assert (code, err) == (0, '')
  assert 'small_12.npz' in out
  assert 'vanilla_dual_clip' in out
  assert 'Conforms: ' in out
  report = json.loads((tmp_path / 'report.json').read_text())
  assert report['conforms'] is True
  assert report['files'] == ['small_12.npz']
  assert all(row['unexplained'] == 0 for row in report['modes'])


def test_a_difference_ends_in_an_exit_code(tmp_path, command):
  with np.load(_SMALL, allow_pickle=False) as archive:
    arrays = {name: archive[name] for name in archive.files}
  arrays['verl/loss/gspo/anchor=old'] = np.float32(7)
  np.savez(tmp_path / 'wrong.npz', **arrays)
  code, out, _ = command(golden=tmp_path, json=tmp_path / 'report.json')
  assert code == 1
  assert 'wrong.npz: verl/loss/gspo/anchor=old: ours' in out
  assert 'DOES NOT CONFORM: ' in out
  assert json.loads((tmp_path / 'report.json').read_text())['conforms'] is False


def test_a_missing_array_is_an_error(tmp_path, command):
  with np.load(_SMALL, allow_pickle=False) as archive:
    arrays = {name: archive[name] for name in archive.files if name != 'mask'}
  np.savez(tmp_path / 'less.npz', **arrays)
  code, out, err = command(golden=tmp_path)
  assert (code, out) == (1, '')
  assert err.startswith('error: less.npz: missing mask; got mu_logits')


def test_files_of_successors_have_a_report_too(tmp_path, command):
  source = _ROOT / 'tests' / 'testdata' / 'golden_successors' / 'small_31.npz'
  with np.load(source, allow_pickle=False) as archive:
    names = [*successor_files.INPUTS, 'exact_tv', 'exact_kl']
    arrays = {name: archive[name] for name in names}
  report = tmp_path / 'report.json'
  for factor, conforms in ((1.0, True), (0.9, False)):
    arrays['exact_tv'] = factor * arrays['exact_tv']
    np.savez(tmp_path / 'part.npz', **arrays)
    code, out, err = command(golden=tmp_path, json=report)
    assert (code, err) == (int(not conforms), '')
    assert 'Successors of 2026: 2 arrays' in out
    found = json.loads(report.read_text())
    assert found['conforms'] is conforms
    assert [c['passes'] for c in found['successors']] == [True, conforms]


def test_an_empty_folder_is_an_error(tmp_path):
  code, out, err = runs.end(runs.start('conformance', f'--golden={tmp_path}'))
  assert (code, out) == (1, '')
  assert err.startswith(f"error: --golden: no .npz file in '{tmp_path}'")


def test_the_folder_must_be_named(command):
  code, _, err = command()
  assert code == 1
  assert err.startswith('error: --golden: missing; name the folder of golden')


_MODELS = _ROOT / 'tests' / 'testdata' / 'hf_models'


def test_published_models_that_conform(tmp_path, command):
  shutil.copytree(_MODELS / 'qwen2_tied', tmp_path / 'a' / 'qwen2')
  code, out, err = command(pretrained=tmp_path)
  assert (code, err) == (0, '')
  assert 'a/qwen2' in out
  assert 'Conforms: 1 models, worst error ' in out


def test_a_published_model_that_differs_ends_in_an_exit_code(tmp_path, command):
  shutil.copytree(_MODELS / 'qwen2_tied', tmp_path / 'qwen2')
  path = tmp_path / 'qwen2' / 'config.json'
  path.write_text(path.read_text().replace('1000000.0', '10000.0'))
  code, out, _ = command(pretrained=tmp_path)
  assert code == 1
  assert 'MISS' in out
  assert 'DOES NOT CONFORM: 1 of 1 models' in out
