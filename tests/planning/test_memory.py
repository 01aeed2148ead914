from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.learner import state as state_lib
from dppo_jax.planning import dry_run, memory
from dppo_jax.planning import memory as memory_lib
from dppo_jax.runtime.programs import parts as parts_lib
from tests.support import runs


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
  with runs.quick_compilation():
    parts = parts_lib.assemble(experiment)
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
  memory = memory_lib.memory(experiment, parts)
  assert memory['parameters'] == _nbytes_on_first(state.params)
  assert memory['gradients'] == memory['parameters']
  assert memory['optimizer state'] == _nbytes_on_first(state.opt_state)


def test_the_rest_follows_from_the_shapes():
  experiment = runs.experiment()
  memory = memory_lib.memory(experiment, runs.parts())
  # Keys and values, 2 layers, 2 heads of 8: 8 prompts of 6, 32 rows of 7.
  assert memory['sampling cache'] == 4 * 2 * 2 * 2 * 8 * (8 * 6 + 32 * 7)
  # 16 rows of 7 tokens, vocabulary of 16, values and gradients.
  assert memory['logits'] == 2 * 4 * 16 * 7 * 16


def test_slots_bound_the_cache_and_the_logits():
  experiment = runs.experiment(
    runs.config(sampling__num_slots=4, learner__num_microbatches=16)
  )
  memory = memory_lib.memory(experiment, runs.parts())
  # 4 rows of 7, each with its prompt of 6.
  assert memory['sampling cache'] == 4 * 2 * 2 * 2 * 8 * 4 * (6 + 7)
  assert memory['logits'] == 2 * 4 * 7 * 16  # Of a microbatch of one row.
  assert memory['sampler logits'] == 2 * 4 * 4 * 16


def test_the_worst_moment_is_sampling_or_training():
  estimate = memory_lib.memory(runs.experiment(), runs.parts())
  # 16 rows of 7 tokens that see 13, 4 heads; three arrays.
  assert estimate['attention scores'] == 4 * 3 * 16 * 4 * 7 * 13
  training = ('gradients', 'activations', 'attention scores', 'logits')
  sampling = ('sampling cache', 'sampler logits')
  kept = sum(estimate.values())
  kept -= sum(estimate[name] for name in (*training, *sampling))
  assert memory_lib.peak({**estimate, 'sampling cache': 1e9}) == pytest.approx(
    kept + 1e9 + estimate['sampler logits']
  )
  assert memory_lib.peak(estimate) == pytest.approx(
    kept + sum(estimate[name] for name in training)
  )


@pytest.mark.parametrize(
  ('platform', 'kind', 'held'),
  [
    # A block of every row on an accelerator, of one row on a CPU; in kernels
    # none. All of them where they are asked for.
    ('gpu', 'NVIDIA H200', 16 * 256**2),
    ('placeholder', 'NVIDIA H200', 16 * 256**2),
    ('cpu', 'cpu', 128**2),
    ('placeholder', 'TPU v5 lite', 0),
    ('materialised', 'TPU v5 lite', 16 * 600 * 606),
  ],
)
def test_scores_are_held_by_blocks(platform, kind, held):
  implementation = 'materialised' if platform == 'materialised' else 'auto'
  experiment = runs.experiment(
    runs.config(
      sampling__max_completion_length=600,
      model__attention=implementation,
      learner__num_microbatches=1,
    )
  )
  device = SimpleNamespace(platform=platform, device_kind=kind)
  shape = dict.fromkeys(parallel.MESH_AXES, 1)
  mesh = SimpleNamespace(size=1, shape=shape, devices=np.array([device]))
  sizes = memory_lib.activations(experiment, mesh)
  assert sizes['attention scores'] == 4 * 3 * 4 * held
  assert 'gathered keys' not in sizes


def test_columns_on_several_devices_gather_keys():
  settings = dict(
    mesh__tensor=2,
    model__shard_sequence=True,
    model__attention='materialised',
    sampling__max_completion_length=8,
  )
  heads, columns = (
    memory_lib.activations(
      runs.experiment(runs.config(model__shard_attention=split, **settings), 2),
      parallel.make_mesh(1, 1, 2, devices=jax.devices()[:2]),
    )
    for split in ('heads', 'columns')
  )
  # Half the heads of all queries, or all heads of half the queries.
  assert columns['attention scores'] == heads['attention scores'] > 0
  # Keys and values and their gradients: 16 rows of 14, 2 heads of 8.
  assert columns['gathered keys'] == 4 * 2 * 2 * 16 * 14 * 2 * 8


def test_weights_of_the_sampler_and_the_reference_count():
  settings = dict(mesh__fsdp=8, mesh__data=1, data__num_prompts=8)
  with runs.quick_compilation():
    plain, both = (
      memory_lib.weights(experiment, parts_lib.assemble_model(experiment))
      for experiment in (
        runs.experiment(runs.config(**settings), 8),
        runs.experiment(
          runs.config(
            sampling__gather_fsdp=True,
            sampling__precision='bfloat16',
            objective__kl_coefficient=0.1,
            **settings,
          ),
          8,
        ),
      )
    )
  assert 'sampler weights' not in plain
  assert 'reference policy' not in plain
  assert both['reference policy'] == both['parameters'] == plain['parameters']
  # Two bytes each, but for the norms' four; each device has them whole.
  whole = both['sampler weights']
  assert 3 * plain['parameters'] < whole < 4.2 * plain['parameters']


def test_sizes_have_units():
  sizes = [12, 2048, 3.5 * 2**20, 5 * 2**30, 2**42]
  assert [memory_lib.show_bytes(size) for size in sizes] == [
    '12.0 B',
    '2.0 KiB',
    '3.5 MiB',
    '5.0 GiB',
    '4,096.0 GiB',
  ]


def test_what_is_frozen_costs_no_gradients():
  settings = runs.config(lora__rank=2, lora__base_dtype='bfloat16')
  with runs.quick_compilation():
    experiment = runs.experiment(settings)
    memory = memory_lib.memory(experiment, parts_lib.assemble(experiment))
    text = dry_run.describe(dry_run.examine(experiment))
  whole = memory_lib.memory(runs.experiment(), runs.parts())['parameters']
  assert memory['base weights'] == whole / 2
  assert memory['gradients'] == memory['parameters'] < whole / 4
  assert memory['optimizer state'] < 2.1 * memory['parameters']
  count = int(memory['parameters'] // 4)
  assert (
    f'parameters         {int(whole // 4):,} frozen and {count:,} of rank 2'
    in text.splitlines()
  )


def test_capacity_is_what_the_device_says():
  def device(stats, kind='x', platform='gpu'):
    return SimpleNamespace(
      memory_stats=lambda: stats, device_kind=kind, platform=platform
    )

  assert memory.capacity(device({'bytes_limit': 5})) == 5.0
  assert memory.capacity(device(None, 'NVIDIA H200')) == 141e9
  assert memory.capacity(device({}, 'NVIDIA H200')) == 141e9
  assert memory.capacity(device(None)) is None
  assert memory.capacity(jax.devices('cpu')[0]) > 1e8
