import dataclasses
import errno
import logging
import os
import signal

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import optax
from orbax.checkpoint.utils import TMP_DIR_SUFFIX
import pytest

from dppo_jax.base import TrainState
from dppo_jax.runtime.storage import checkpoints
from tests.support import runs, silence


def _state(step, *, width=16, typed_key=True):
  params = {
    'embedding': jax.random.normal(jax.random.key(step), (8, width)),
    'layers': {'scale': jnp.full((2, width), 1 / 3, jnp.bfloat16)},
  }
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(1, 0, 9))
  )
  opt_state = optimizer.init(params)
  _, opt_state = optimizer.update(params, opt_state, params)
  key = jax.random.key(7) if typed_key else jax.random.PRNGKey(7)
  return TrainState(
    step=jnp.int32(step), params=params, opt_state=opt_state, key=key
  )


def _bits(state):
  def of(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()

  return jax.tree.map(of, state)


def _assert_same_bits(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  assert _bits(a) == _bits(b)


@pytest.fixture
def opened():
  """Opens checkpoints, and closes them after the test."""
  everything = []

  def open_(directory, keep=2, **options):
    everything.append(
      checkpoints.Checkpoints(directory, keep, 'accuracy', **options)
    )
    return everything[-1]

  yield open_
  for each in everything:
    each.close()


def _save(store, step, accuracy=None, **options):
  metrics = {'loss': 1.0}
  if accuracy is not None:
    metrics['accuracy'] = accuracy
  store.save(step, _state(step, **options), metrics, {'step': step})
  store.wait()


@pytest.mark.parametrize('typed_key', [True, False])
def test_round_trip_is_bit_exact(tmp_path, opened, typed_key):
  state = _state(3, typed_key=typed_key)
  store = opened(tmp_path)
  store.save(3, state, {}, {'config': {'seed': 0}, 'text': 'ü'})
  store.wait()
  restored, metadata = opened(tmp_path).restore(_state(0, typed_key=typed_key))
  _assert_same_bits(restored, state)
  assert metadata == {'config': {'seed': 0}, 'text': 'ü'}
  jax.random.split(jax.random.fold_in(restored.key, 1))


def test_arrays_may_be_donated_after_save(tmp_path, opened):
  state = _state(1)
  expected = _bits(state)
  store = opened(tmp_path)
  store.save(1, state, {}, {})
  donate = jax.jit(
    lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0
  )
  donate(state.params)
  assert _bits(store_and_restore(store)) == expected


def store_and_restore(store):
  store.wait()
  return store.restore(_state(0))[0]


def test_restores_into_the_given_shardings(tmp_path, opened):
  _save(opened(tmp_path), 1)
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ('data', 'tensor'))
  split = NamedSharding(mesh, PartitionSpec('data', 'tensor'))
  whole = NamedSharding(mesh, PartitionSpec())

  def abstract(leaf):
    sharding = split if leaf.shape == (8, 16) else whole
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  target = jax.tree.map(abstract, _state(0))
  restored, _ = opened(tmp_path).restore(target)
  _assert_same_bits(restored, _state(1))
  assert restored.params['embedding'].sharding == split
  assert restored.opt_state[1][0].mu['embedding'].sharding == split
  assert restored.step.sharding.is_equivalent_to(whole, 0)
  assert len(restored.key.devices()) == 8


def test_a_run_moves_to_fewer_devices(tmp_path, opened):
  state = _state(1)
  for step, count in enumerate((8, 2, 1), start=1):
    mesh = Mesh(np.array(jax.devices()[:count]), ('fsdp',))
    split = NamedSharding(mesh, PartitionSpec('fsdp'))
    whole = NamedSharding(mesh, PartitionSpec())

    def target(leaf, split=split, whole=whole):
      sharding = split if leaf.shape == (8, 16) else whole
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    abstract = jax.tree.map(target, _state(0))
    if step == 1:
      moved = jax.tree.map(
        lambda leaf, like: jax.device_put(leaf, like.sharding), state, abstract
      )
    else:
      moved, _ = opened(tmp_path).restore(abstract)
    _assert_same_bits(moved, state)
    shards = moved.params['embedding'].addressable_shards
    assert [s.data.shape for s in shards] == [(8 // count, 16)] * count
    store = opened(tmp_path)
    store.save(step, moved, {}, {})
    store.wait()


def test_a_sharded_state_is_saved_completely(tmp_path, opened):
  mesh = Mesh(np.array(jax.devices()), ('data',))
  state = _state(1)
  embedding = jax.device_put(
    state.params['embedding'], NamedSharding(mesh, PartitionSpec('data'))
  )
  store = opened(tmp_path)
  params = state.params | {'embedding': embedding}
  store.save(1, dataclasses.replace(state, params=params), {}, {})
  store.wait()
  restored, _ = store.restore(_state(0))
  _assert_same_bits(restored, state)
  assert len(restored.params['embedding'].devices()) == 1


def test_keeps_the_latest_and_the_best(tmp_path, opened):
  store = opened(tmp_path, keep=2)
  for step, accuracy in enumerate([0.1, 0.9, None, 0.5, float('nan'), 0.3]):
    _save(store, step, accuracy)
  assert store.steps() == [1, 4, 5]
  assert (store.latest_step(), store.best_step()) == (5, 1)
  # Another process knows the best one, too.
  again = opened(tmp_path, keep=2)
  assert again.best_step() == 1
  _save(again, 6, 0.95)
  assert again.steps() == [5, 6]


def test_a_score_that_is_not_finite_is_no_score(tmp_path, opened):
  store = opened(tmp_path, keep=3)
  for step, accuracy in enumerate([float('inf'), 0.5, float('nan')]):
    _save(store, step, accuracy)
  assert store.best_step() == 1


def test_an_empty_folder_has_nothing(tmp_path, opened):
  store = opened(tmp_path / 'new')
  assert store.steps() == []
  assert store.latest_step() is None
  assert store.best_step() is None
  with pytest.raises(FileNotFoundError, match='no checkpoint in'):
    store.restore(_state(0))


def test_a_step_that_is_not_there_is_named(tmp_path, opened):
  store = opened(tmp_path)
  _save(store, 3)
  with pytest.raises(FileNotFoundError, match=r'no checkpoint 4 .*\[3\]'):
    store.restore(_state(0), step=4)


def _largest_file(folder):
  files = (path for path in folder.rglob('*') if path.is_file())
  return max(files, key=lambda path: path.stat().st_size)


def _truncate(folder):
  path = _largest_file(folder)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_one_bit(folder):
  path = _largest_file(folder)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def _remove_a_file(folder):
  _largest_file(folder).unlink()


def _garble_metadata(folder):
  (folder / 'metadata' / 'metadata').write_text('{"arrays": {')


def _remove_the_list(folder):
  (folder / 'checksums.json').unlink()


@pytest.mark.parametrize(
  'damage',
  [
    _truncate,
    _flip_one_bit,
    _remove_a_file,
    _garble_metadata,
    _remove_the_list,
  ],
)
def test_a_damaged_checkpoint_falls_back(tmp_path, opened, caplog, damage):
  store = opened(tmp_path)
  _save(store, 1)
  _save(store, 2)
  damage(tmp_path / '2')
  with caplog.at_level(logging.ERROR):
    restored, metadata = opened(tmp_path).restore(_state(0))
  _assert_same_bits(restored, _state(1))
  assert metadata == {'step': 1}
  assert 'step 2 is damaged' in caplog.text
  assert 'trying step 1 instead' in caplog.text
  # Out of the way, but still there.
  again = opened(tmp_path)
  assert again.latest_step() == 1
  assert (tmp_path / 'damaged-2').is_dir()
  _save(again, 2)
  assert again.steps() == [1, 2]


def test_reading_only_changes_nothing(tmp_path, opened):
  store = opened(tmp_path)
  _save(store, 1)
  _save(store, 2)
  _truncate(tmp_path / '2')
  (tmp_path / '3.orbax-checkpoint-tmp').mkdir()
  before = sorted(tmp_path.rglob('*'))
  reader = opened(tmp_path, keep=1, read_only=True)
  restored, _ = reader.restore(_state(0))
  reader.close()
  assert int(restored.step) == 1
  assert sorted(tmp_path.rglob('*')) == before


def test_if_all_checkpoints_are_damaged_the_error_lists_them(tmp_path, opened):
  store = opened(tmp_path)
  _save(store, 1)
  _save(store, 2)
  for step in (1, 2):
    _truncate(tmp_path / str(step))
  with pytest.raises(
    checkpoints.CheckpointError, match=r'step 2 is damaged.*step 1 is damaged'
  ):
    store.restore(_state(0))
  assert store.steps() == [1, 2]


def test_a_named_step_does_not_fall_back(tmp_path, opened):
  store = opened(tmp_path)
  _save(store, 1)
  _save(store, 2)
  _truncate(tmp_path / '2')
  with pytest.raises(checkpoints.CheckpointError, match='step 2 is damaged'):
    store.restore(_state(0), step=2)
  assert int(store.restore(_state(0), step=1)[0].step) == 1


def test_another_model_is_an_error_and_not_damage(tmp_path, opened):
  store = opened(tmp_path)
  _save(store, 1)
  _save(store, 2)
  with pytest.raises(
    ValueError,
    match=r'params.embedding: stored float32\[8,16\], wanted float32\[8,32\]',
  ):
    store.restore(_state(0, width=32))


def test_going_back_sets_later_checkpoints_aside(tmp_path, opened):
  store = opened(tmp_path, keep=3)
  for step, accuracy in [(1, 0.5), (2, 0.9), (3, 0.7)]:
    _save(store, step, accuracy)
  _save(store, 2, 0.1)
  assert store.steps() == [1, 2]
  assert store.best_step() == 1
  assert (tmp_path / 'superseded-2').is_dir()
  assert (tmp_path / 'superseded-3').is_dir()
  _save(store, 2)
  assert (tmp_path / 'superseded-2-2').is_dir()


def test_a_failed_write_leaves_the_previous_one(tmp_path, opened, monkeypatch):
  store = opened(tmp_path)
  _save(store, 1)

  def full(*unused_args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(checkpoints.checksums, 'write', full)
    store.save(2, _state(2), {}, {})
    with pytest.raises(
      checkpoints.CheckpointError,
      match=r'No space left on device.*Complete checkpoints: \[1\]',
    ):
      store.wait()
  assert [path.name for path in tmp_path.iterdir()] == ['1']
  # Once there is room, it goes on.
  _save(store, 3)
  assert store.steps() == [1, 3]
  _assert_same_bits(store.restore(_state(0))[0], _state(3))


_FILE_LIMIT = """
import pathlib, resource, sys
import jax.numpy as jnp
from dppo_jax.base import TrainState
from dppo_jax.runtime.storage import checkpoints

def state(width):
  noise = jnp.sin(1e4 * jnp.arange(width))
  return TrainState(
    step=jnp.int32(1), params={'w': noise}, opt_state=(), key=jnp.uint32([0, 1])
  )

store = checkpoints.Checkpoints(sys.argv[1], 2, 'accuracy')
store.save(1, state(1000), {}, {})
store.wait()
# No file may grow beyond this, as on a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
store.save(2, state(100_000), {}, {})
try:
  store.wait()
except checkpoints.CheckpointError as error:
  print(error)
restored, _ = store.restore(state(1000))
print(bool((restored.params['w'] == state(1000).params['w']).all()))
store.close()
"""


def test_a_writer_that_cannot_write_leaves_the_previous_one(tmp_path):
  message, intact = runs.said(_FILE_LIMIT, tmp_path).splitlines()
  assert 'failed' in message
  assert 'Complete checkpoints: [1]' in message
  assert intact == 'True'


def test_a_writer_that_still_writes_does_not_hide_its_error(
  tmp_path, monkeypatch
):
  # Orbax's writer may add a file between the listing and the removal.
  def not_empty(*_, **__):
    raise OSError(errno.ENOTEMPTY, 'Directory not empty')

  unfinished = tmp_path / f'2{TMP_DIR_SUFFIX}'
  unfinished.mkdir()
  with monkeypatch.context() as patch:
    patch.setattr(os, 'rmdir', not_empty)
    checkpoints.Checkpoints(tmp_path, 1, 'accuracy').close()
  assert unfinished.is_dir()
  checkpoints.Checkpoints(tmp_path, 1, 'accuracy').close()
  assert not unfinished.is_dir()


_ENDLESS_SAVES = """
import sys
import jax, jax.numpy as jnp
from dppo_jax.base import TrainState
from dppo_jax.runtime.storage import checkpoints

store = checkpoints.Checkpoints(sys.argv[1], 2, 'accuracy')
for step in range(1, 10_000):
  state = TrainState(
    step=jnp.int32(step),
    params={'w': jax.random.normal(jax.random.key(step), (500, 500))},
    opt_state=(),
    key=jax.random.key(0),
  )
  store.save(step, state, {'accuracy': -step}, {'step': step})
  print(step, flush=True)
"""


def test_kill_in_the_middle_of_a_save(tmp_path, opened):
  process = runs.start_code(_ENDLESS_SAVES, tmp_path, fresh=True)
  for line in process.stdout:
    if int(line) == 4:
      break

  def halted_within():
    # Looked at while it stands still: it may be done a moment later.
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    if list(tmp_path.glob('*.orbax-checkpoint-tmp*')):
      return True
    process.send_signal(signal.SIGCONT)
    return False

  # `save` has returned; its files are being written.
  runs.wait(halted_within, process)
  process.send_signal(signal.SIGKILL)
  runs.end(process)
  assert list(tmp_path.glob('*.orbax-checkpoint-tmp*'))
  store = opened(tmp_path)
  assert not list(tmp_path.glob('*.orbax-checkpoint-tmp*'))
  zeros = TrainState(
    step=jnp.int32(0),
    params={'w': jnp.zeros((500, 500))},
    opt_state=(),
    key=jax.random.key(1),
  )
  restored, metadata = store.restore(zeros)
  step = int(restored.step)
  assert step >= 3
  assert metadata == {'step': step}
  chex.assert_trees_all_equal(
    restored.params['w'], jax.random.normal(jax.random.key(step), (500, 500))
  )


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(checkpoints.CheckpointError, match='cannot write to'):
    checkpoints.Checkpoints(tmp_path / 'file' / 'new', 2, 'accuracy')


def test_keeping_none_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'checkpoints.keep: got 0'):
    checkpoints.Checkpoints(tmp_path, 0, 'accuracy')


def test_parameters_are_read_without_the_rest(tmp_path, opened):
  store = opened(tmp_path)
  _save(store, 3)
  store.wait()
  expected = _state(3).params
  _assert_same_bits(store.restore_params(expected, None)[0], expected)
  with pytest.raises(ValueError, match=r'another model.*params\.extra'):
    store.restore_params({**expected, 'extra': jnp.zeros(1)}, 3)


def test_slow_reading_of_a_checkpoint_is_told(monkeypatch, tmp_path, opened):
  store, state = opened(tmp_path), _state(3)
  store.save(3, state, {}, {})
  with silence.of_command(monkeypatch) as heard:
    monkeypatch.setattr(
      store._checkpointer,
      'check_for_errors',
      heard.slow(store._checkpointer.check_for_errors),
    )
    check = heard.slow(checkpoints.checksums.check)
    monkeypatch.setattr(checkpoints.checksums, 'check', check)
    monkeypatch.setattr(store, '_read_arrays', heard.slow(store._read_arrays))
    store.wait()
    store.restore(state)
  assert heard.told == [
    'writing checkpoint 3 … 11 s',
    'checking checkpoint 3 … 11 s',
    'reading checkpoint 3 … 11 s',
  ]
