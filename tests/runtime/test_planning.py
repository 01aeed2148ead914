import jax
import pytest

from dppo_jax.learner import state as state_lib
from dppo_jax.runtime import assembly, planning
from tests import runs


def _nbytes_on_first(tree):
  first = jax.devices()[0]
  return sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(tree)
    for shard in leaf.addressable_shards
    if shard.device == first
  )


@pytest.mark.parametrize(
  ('mesh', 'num_devices'),
  [({}, 1), (dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2), 8)],
)
def test_the_memory_of_the_state_is_exact(mesh, num_devices):
  experiment = runs.experiment(runs.config(**mesh), num_devices)
  with runs.devices(num_devices):
    parts = assembly.assemble(experiment)
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
  memory = planning.memory(experiment, parts)
  assert memory['parameters'] == _nbytes_on_first(state.params)
  assert memory['gradients'] == memory['parameters']
  assert memory['optimizer state'] == _nbytes_on_first(state.opt_state)


def test_the_rest_follows_from_the_shapes():
  experiment = runs.experiment()
  memory = planning.memory(experiment, runs.parts())
  # Keys and values, 2 layers, 2 heads of 8: 8 prompts of 6, 32 rows of 7.
  assert memory['sampling cache'] == 4 * 2 * 2 * 2 * 8 * (8 * 6 + 32 * 7)
  # 16 rows of 7 tokens, vocabulary of 16, values and gradients.
  assert memory['logits'] == 2 * 4 * 16 * 7 * 16


def test_rows_at_once_bound_the_cache_and_the_logits():
  experiment = runs.experiment(
    runs.config(sampling__rows_at_once=4, learner__num_microbatches=16)
  )
  memory = planning.memory(experiment, runs.parts())
  # 4 rows of 7, each with its prompt of 6.
  assert memory['sampling cache'] == 4 * 2 * 2 * 2 * 8 * 4 * (6 + 7)
  assert memory['logits'] == 2 * 4 * 7 * 16  # Of a microbatch of one row.


def test_the_worst_moment_is_sampling_or_training():
  estimate = planning.memory(runs.experiment(), runs.parts())
  # 16 rows of 13 tokens, 4 heads; three arrays.
  assert estimate['attention scores'] == 4 * 3 * 16 * 4 * 13**2
  both = sum(estimate.values())
  for name in ('gradients', 'activations', 'attention scores'):
    both -= estimate[name]
  assert planning.peak({**estimate, 'sampling cache': 1e9}) == pytest.approx(
    both - estimate['sampling cache'] + 1e9
  )
  everything = sum(estimate.values()) - estimate['sampling cache']
  assert planning.peak(estimate) == everything


def test_a_plan_is_for_devices_that_are_not_here():
  config = '--config=configs/tiny.py'
  four = '--config.mesh.fsdp=2', '--config.mesh.tensor=2'
  for flags, count in ((('--num_devices=2',), 2), (four, 4)):
    code, out, err = runs.end(runs.start('train', config, '--dry_run', *flags))
    assert code == 0, err
    assert f'devices            {count}, mesh ' in out


def test_the_plan_counts_tokens():
  with runs.devices():
    text = planning.describe(runs.experiment())
  for line in (
    'train steps        6 of 2 updates',
    'completions a step 32 (8 prompts × 4)',
    'sampled tokens     at most 224 a step, 1,344 in all',
    'trained tokens     at most 416 a step',
    '  parameters       25.4 KiB',
  ):
    assert line in text.splitlines()


def test_sizes_have_units():
  sizes = [12, 2048, 3.5 * 2**20, 5 * 2**30, 2**42]
  assert [planning.show_bytes(size) for size in sizes] == [
    '12.0 B',
    '2.0 KiB',
    '3.5 MiB',
    '5.0 GiB',
    '4,096.0 GiB',
  ]


def test_what_is_frozen_costs_no_gradients():
  settings = runs.config(lora__rank=2, lora__base_dtype='bfloat16')
  with runs.devices():
    experiment = runs.experiment(settings)
    memory = planning.memory(experiment, assembly.assemble(experiment))
    text = planning.describe(experiment)
  whole = planning.memory(runs.experiment(), runs.parts())['parameters']
  assert memory['frozen weights'] == whole / 2
  assert memory['gradients'] == memory['parameters'] < whole / 4
  assert memory['optimizer state'] < 2.1 * memory['parameters']
  count = int(memory['parameters'] // 4)
  assert (
    f'parameters         {int(whole // 4):,} frozen and {count:,} of rank 2'
    in text.splitlines()
  )
