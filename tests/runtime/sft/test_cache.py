import jax
import numpy as np
import pytest

from dppo_jax.runtime.hosts.preemption import StopRequest
from dppo_jax.runtime.sft import cache
from dppo_jax.runtime.sft.warm_start import warm_start
from tests.support import runs


def _settings(folder, **more):
  return runs.config(sft__num_steps=3, sft__cache=str(folder), **more)


def _start(settings):
  with runs.quick_compilation():
    return warm_start(
      runs.experiment(settings), runs.parts(settings), StopRequest()
    )


def _load(settings):
  like = runs.parts(settings).abstract_state.params
  return cache.load(runs.experiment(settings), like)


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
  """A folder with a warm start, and the state it was made with."""
  folder = tmp_path_factory.mktemp('warm')
  return folder, _start(_settings(folder))


def test_the_next_run_begins_with_the_same_bits(kept, capsys):
  folder, first = kept
  (path,) = folder.iterdir()
  written = path.stat().st_mtime_ns
  second = _start(_settings(folder, trust_region__delta_low=0.7, num_steps=9))
  same = jax.tree.map(np.array_equal, first, second)
  assert all(jax.tree.leaves(same))
  assert 'warm start' not in capsys.readouterr().err  # No step was taken.
  assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
  'change',
  [
    {'seed': 1},
    {'sft__noise': 0.2},
    {'sft__learning_rate': 1e-3},
    {'model__d_ff': 48},
    {'data__overlong': 'error'},
  ],
  ids=str,
)
def test_another_warm_start_is_not_taken(kept, change):
  folder, _ = kept
  with runs.quick_compilation():
    assert _load(_settings(folder)) is not None
    assert _load(_settings(folder, **change)) is None


# The last two: a compression, and a version of arrays, that nobody knows.
_DAMAGES = {
  'empty': lambda whole: b'',
  'begun': lambda whole: b'PK\x03\x04',
  'half': lambda whole: whole[: len(whole) // 2],
  'encrypted': lambda whole: whole.replace(
    b'PK\x01\x02\x2d\x03\x2d\x00\x00', b'PK\x01\x02\x2d\x03\x2d\x00\x01'
  ).replace(b'PK\x03\x04\x2d\x00\x00', b'PK\x03\x04\x2d\x00\x01'),
  'compressed': lambda whole: whole.replace(
    b'PK\x01\x02\x2d\x03\x2d\x00\x00\x00\x00',
    b'PK\x01\x02\x2d\x03\x2d\x00\x00\x00\x63',
  ),
  'version': lambda whole: whole.replace(b'NUMPY\x01', b'NUMPY\x09'),
}


@pytest.mark.parametrize('damage', _DAMAGES)
def test_a_damaged_file_is_written_again(kept, tmp_path, caplog, damage):
  folder, _ = kept
  (path,) = folder.iterdir()
  whole = path.read_bytes()
  damaged = _DAMAGES[damage](whole)
  assert damaged != whole
  (tmp_path / path.name).write_bytes(damaged)
  with runs.quick_compilation():
    assert _load(_settings(tmp_path)) is None
  assert 'is damaged' in caplog.text


def test_arrays_of_another_shape_are_not_taken(kept, tmp_path):
  folder, state = kept
  (path,) = folder.iterdir()
  wrong = jax.tree.map(lambda leaf: np.asarray(leaf)[..., :1], state.params)
  settings = _settings(tmp_path)
  with runs.quick_compilation():
    cache.save(runs.experiment(settings), wrong)
    assert (tmp_path / path.name).is_file()
    assert _load(settings) is None


def test_a_folder_that_cannot_be_made_is_a_warning(kept, tmp_path, caplog):
  (tmp_path / 'file').touch()
  settings = _settings(tmp_path / 'file' / 'x')
  with runs.quick_compilation():
    experiment = runs.experiment(settings)
    cache.save(experiment, kept[1].params)
  assert caplog.text.count('sft.cache: cannot write') == 1
