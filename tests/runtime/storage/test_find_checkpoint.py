import shutil

import pytest

from dppo_jax.runtime.evaluation import offline
from dppo_jax.runtime.storage import workdir
from tests.support import runs


def _load(folder, step):
  experiment = runs.experiment()
  return offline.load_policy(runs.parts(), experiment.checkpoints, folder, step)


def test_a_checkpoint_is_found_by_name_and_number(finished):
  assert int(_load(finished, 'latest').step) == 6
  assert int(_load(finished, '4').step) == 4
  # Only the last checkpoint still there was saved after an evaluation.
  assert int(_load(finished, 'best').step) == 6


@pytest.mark.parametrize('step', ['5', 'lastest', '-1'])
def test_a_checkpoint_that_is_not_there(finished, step):
  with pytest.raises(
    ValueError, match=rf"--step: no checkpoint '{step}'; there are \[4, 6\]"
  ):
    _load(finished, step)


def test_no_checkpoint_yet(tmp_path):
  with pytest.raises(ValueError, match='holds no checkpoint yet'):
    _load(tmp_path, 'latest')
  assert list(tmp_path.iterdir()) == []


def test_no_best_checkpoint(finished, tmp_path):
  folder = shutil.copytree(finished, tmp_path / 'run')
  shutil.rmtree(folder / workdir.CHECKPOINTS / '6')
  with pytest.raises(ValueError, match=r'--step: best, but none of .*\[4\]'):
    _load(folder, 'best')
