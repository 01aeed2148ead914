import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import pytest

from dppo_jax import parallel
from dppo_jax.base import Prompts
from dppo_jax.configs import qwen3_8b_base
from dppo_jax.experiments.bench import rollout
from dppo_jax.models.policy import make_policy
from dppo_jax.planning import dry_run
from dppo_jax.planning.aot import (
  costs,
  estimates,
  hlo,
  programs,
  topologies,
)
from dppo_jax.runtime.programs import parts as parts_lib
from dppo_jax.sampling import continuous, decode
from tests.support import runs, tpus

_REFUSAL = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of \
memory in memory space hbm. Used 42.73G of 15.75G hbm. Exceeded hbm capacity \
by 26.98G.

Total hbm usage >= 42.98G:
    reserved        258.00M
    program          40.00G
    arguments         2.73G

Largest program allocations in hbm:

  1. Size: 9.03G
     Operator: op_name="jit(step)/while/body/div" source_file="x.py"
     Shape: f32[1,4,9024,9024]{3,2,1,0:T(8,128)}
     Unpadded size: 9.00G
     ==========================

  2. Size: 512.00M
     Shape: bf16[8,128]{1,0}
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
  monkeypatch.setenv('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')


def _compile(name, slices, names, **overrides):
  topology = topologies.parse(name, slices)
  settings = runs.smallest(
    model__num_layers=1,
    model__dtype='bfloat16',
    learner__num_microbatches=1,
    **overrides,
  )
  experiment = runs.experiment(settings, topology.num_devices)
  devices = topologies.describe(topology)
  told = []
  found = programs.compile_phases(experiment, devices, names, told.append)
  return {phase.name: phase for phase in found}, told


@tpus.needs_libtpu
@pytest.mark.parametrize(
  ('name', 'slices'),
  [
    ('v5e:2x2', 1),
    ('v5e:2x2', 2),
    ('v5p:2x2x1', 1),
    ('v6e:2x2', 1),
    ('tpu7x:2x2x1', 1),
  ],
)
def test_a_train_step_compiles_for_every_kind(name, slices):
  count = topologies.parse(name, slices).num_devices
  shape = dict(mesh__data=-1, mesh__tensor=2 if count > 2 else 1)
  found, told = _compile(name, slices, [programs.TRAINING], **shape)
  phase = found[programs.TRAINING]
  assert told == [f'Compiling training for {count} devices']
  assert not phase.refused
  assert phase.memory.temporaries > 0
  assert not phase.unread
  kinds = {one.kind for one in phase.collectives}
  assert 'all-reduce' in kinds
  assert ('send' in kinds) == (slices > 1)
  # The state is donated: nothing of it is returned beside itself.
  assert phase.memory.outputs < phase.memory.arguments / 4


@tpus.needs_libtpu
def test_sampling_and_scoring_compile():
  names = (programs.SAMPLING, programs.SCORING)
  found, _ = _compile('v5e:2x2', 1, names, mesh__data=2, mesh__tensor=2)
  sampling, scoring = found[programs.SAMPLING], found[programs.SCORING]
  assert (sampling.runs, scoring.runs) == (1, 0)
  # Keys and values of 2 prompts of 6 and 4 rows of 7, one head of 8, bf16.
  assert sampling.cache == 2 * 2 * (2 * 6 + 4 * 7) * 8
  assert scoring.cache == 0
  assert sampling.memory.beside == scoring.memory.beside > 0
  names = {array.name for array in sampling.arguments}
  assert 'params/embedding' in names


@tpus.needs_libtpu
def test_a_narrow_base_is_not_packed_for_a_tpu():
  found, _ = _compile(
    'v5e:2x2',
    1,
    [programs.TRAINING],
    lora__rank=2,
    lora__base_dtype='bfloat16',
    mesh__data=4,
  )
  phase = found[programs.TRAINING]
  assert not [one for one in phase.arrays if one.shape.startswith('u16')]


@tpus.needs_libtpu
@pytest.mark.parametrize('name', ['v5e:2x4', 'v5p:2x2x1'])
def test_rows_laid_over_devices_by_columns_compile(name):
  found, _ = _compile(
    name,
    1,
    [programs.SCORING, programs.TRAINING],
    mesh__tensor=2,
    data__num_prompts=8,
    data__max_prompt_length=256,
    sampling__max_completion_length=512,
    model__head_dim=64,
    model__num_heads=2,
    model__num_kv_heads=2,
    model__shard_sequence=True,
    model__shard_attention='columns',
  )
  for phase in found.values():
    assert not phase.refused
    assert not phase.unread
    kinds = {one.kind for one in phase.collectives}
    assert 'all-gather' in kinds
  # Gradients of keys and values go back to where they came from.
  assert 'reduce-scatter' in {
    one.kind for one in found[programs.TRAINING].collectives
  }


@pytest.mark.slow
@tpus.needs_libtpu
@pytest.mark.parametrize('name', [programs.SCORING, programs.TRAINING])
def test_8k_tokens_on_256_chips_hold_no_scores(name):
  config = qwen3_8b_base.get_config()
  config.mesh.tensor = 8
  config.model.shard_sequence = True
  topology = topologies.parse('v5e:16x16')
  experiment = estimates.for_device(
    dry_run.build(config, topology.num_devices), topology.device_kind
  )
  devices = topologies.describe(topology)
  parts = parts_lib.assemble_model(experiment, devices)
  planned = programs._programs(programs._at_the_limit(experiment), parts)
  text = planned[name].lower().compile().as_text()
  length = config.sampling.max_completion_length
  shapes = {
    tuple(map(int, dims.split(',')))
    for dims in re.findall(r'\bf32\[([\d,]+)\]', text)
  }
  assert any(length < max(shape) for shape in shapes)  # Of all columns.
  # Queries by keys; and, of any shape, as many for a device's 4 heads.
  long = [s for s in shapes if sum(size >= length for size in s) > 1]
  assert not long
  assert max(map(math.prod, shapes)) < 4 * length**2


def test_a_refusal_says_what_was_needed():
  size, whole = programs.needed(_REFUSAL)
  assert size == pytest.approx(42.73 * 2**30)
  assert whole
  short = (
    'RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM,'
    ' the total memory required for HLO temporaries (57.61G) exceeds available'
    ' HBM (15.75G). HLO module: jit_score.'
  )
  assert programs.needed(short) == (pytest.approx(57.61 * 2**30), False)
  assert programs.needed('INTERNAL: something else') is None
  first, second = programs.refused_arrays(_REFUSAL)
  assert first.shape == 'f32[1,4,9024,9024]'
  assert first.name == 'jit(step)/while/body/div'
  assert first.num_bytes == pytest.approx(9.03 * 2**30)
  assert (second.name, second.shape) == ('', 'bf16[8,128]')
  assert second.num_bytes == 512 * 2**20


def test_memory_adds_up():
  memory = programs.Memory(
    arguments=1, outputs=2, temporaries=4, code=8, beside=16
  )
  assert memory.total == 31


def test_rows_are_planned_at_the_limit():
  experiment = runs.experiment(runs.smallest(learner__length_buckets=3))
  assert experiment.learner.buckets.widths(7) == (3, 5, 7)
  planned = programs._at_the_limit(experiment)
  assert planned.learner.buckets.widths(7) == (7,)


def test_loops_of_slots_turn_as_often_as_full_rows_need():
  settings = runs.config(sampling__num_slots=4)
  experiment = runs.experiment(settings)
  trips = programs._trips(experiment, runs.parts(settings))
  # 32 rows one by one in 4 slots; 6 tokens each are decoded.
  assert trips[continuous.REFILL_LOOP] == 32
  assert trips[continuous.DECODE_LOOP] == 2  # 1.5, rounded up.
  assert list(trips).index(continuous.DECODE_LOOP) < list(trips).index(
    continuous.REFILL_LOOP
  )
  assert set(programs._trips(runs.experiment(), runs.parts())) == {'shard_map'}


_LENGTH, _HEADS = 4096, 4


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('v5e:2x2', marks=tpus.needs_libtpu),
    pytest.param('gpu:4xh100', marks=tpus.needs_cuda_plugin),
  ],
)
def test_no_array_of_a_train_step_holds_all_scores(name):
  """Such an array would be its largest by far: 64 MiB for one row and head."""
  code = (
    'import json\n'
    'from tests.planning.aot import test_programs as case\n'
    f'print(json.dumps(case.largest_arrays({name!r})))\n'
  )
  shapes = json.loads(tpus.run(code)[-1])
  assert len(shapes) == 6
  for shape in shapes:
    sizes = [int(n) for n in shape.partition('[')[2].rstrip(']').split(',')]
    assert sum(size >= _LENGTH for size in sizes) < 2, shape


def largest_arrays(name):
  """Shapes of the largest arrays of a train step with a row a device."""
  topology = topologies.parse(name)
  settings = runs.smallest(
    model__num_layers=1,
    model__num_heads=2,
    model__head_dim=64,
    model__dtype='bfloat16',
    model__remat='full',
    data__max_prompt_length=_LENGTH // 2,
    sampling__max_completion_length=_LENGTH // 2,
    learner__num_microbatches=2,
    mesh__data=topology.num_devices,
  )
  experiment = runs.experiment(settings, topology.num_devices)
  devices = topologies.describe(topology)
  (phase,) = programs.compile_phases(
    experiment, devices, [programs.TRAINING], print
  )
  assert not phase.refused
  return [one.shape for one in phase.arrays]


@tpus.needs_cuda_plugin
@pytest.mark.parametrize('shares_prompts', [False, True])
def test_a_train_step_for_gpus_runs_kernels_in_bounded_memory(shares_prompts):
  """Kernels: forward, again as it is recomputed, and two backward.

  Of rows that share a prompt they are the prompt's; the completions, which see
  its keys too, run by blocks. Beside gradients of this and all microbatches, no
  larger than the arguments (weights and two moments), a device holds some
  arrays of all tokens and heads in f32: queries, keys, values, outputs, their
  gradients, and what the feed-forward layer, as wide, has of each. 16 of them
  are half of what one array of scores would be.
  """
  code = (
    'import json\n'
    'from tests.planning.aot import test_programs as case\n'
    f'found = case.gpu_train_step({shares_prompts})\n'
    'print(json.dumps(found))\n'
  )
  found, temporaries, arguments = json.loads(tpus.run(code)[-1])
  tokens = 4 * _LENGTH * _HEADS * 128
  assert found == 4
  assert temporaries < arguments + 16 * tokens
  assert 32 * tokens <= 4 * _HEADS * _LENGTH**2


def gpu_train_step(shares_prompts):
  """Triton calls, temporaries and arguments, with 4,096 tokens a device."""
  topology = topologies.parse('gpu:8xh100')
  settings = runs.smallest(
    model__num_layers=2,
    model__d_model=_HEADS * 128,
    model__d_ff=_HEADS * 128,
    model__num_heads=_HEADS,
    model__num_kv_heads=2,
    model__head_dim=128,
    model__dtype='bfloat16',
    model__remat='full',
    data__max_prompt_length=_LENGTH // 2,
    sampling__max_completion_length=_LENGTH // 2,
    learner__num_microbatches=1 if shares_prompts else 2,
    mesh__data=8,
    data__num_prompts=8,
    evaluation__num_prompts=8,
    learner__share_prompt_prefix=shares_prompts,
  )
  experiment = runs.experiment(settings, topology.num_devices)
  parts = parts_lib.assemble_model(experiment, topologies.describe(topology))
  planned = programs._programs(programs._at_the_limit(experiment), parts)
  compiled = planned[programs.TRAINING].lower().compile()
  memory = compiled.memory_analysis()
  return (
    compiled.as_text().count('xla.gpu.triton"'),
    memory.temp_size_in_bytes,
    memory.argument_size_in_bytes,
  )


@tpus.needs_libtpu
def test_a_decode_step_reads_weights_and_cache_once():
  """A layer of Qwen3-1.7B's shape adds to both alike, so two will do.

  64 completions of 8 prompts, at a full cache. Copies of the cache, or of a
  layer of it, would be as large again.
  """
  code = (
    'import json\n'
    'from tests.planning.aot import test_programs as case\n'
    'print(json.dumps(case.decode_bytes("v5p:2x2x1")))\n'
  )
  found, least = json.loads(tpus.run(code)[-1])
  assert least < found <= 1.15 * least


def decode_bytes(name):
  """HBM bytes of a decode step, and those of weights and KV cache."""
  num_prompts, group, length, columns = 8, 8, 1024, 3072
  mesh = parallel.make_mesh(
    1, 1, 1, topologies.describe(topologies.parse(name))[:1]
  )
  axes = parallel.VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)
  model = dataclasses.replace(
    rollout.random_model(2, 'bfloat16'), d_model=2048, d_ff=6144
  )
  policy = make_policy(model, mesh)
  config = rollout.sampling(columns, 20, group)
  whole = parallel.replicated(mesh)

  def described(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

  params = jax.tree.map(
    lambda leaf: described(leaf.shape, jnp.bfloat16), rollout.shapes(model)
  )
  prompts = Prompts(
    tokens=described((num_prompts, length), jnp.int32),
    mask=described((num_prompts, length), bool),
    example_id=described((num_prompts,), jnp.int32),
  )
  key = described((2,), jnp.uint32)
  state = jax.eval_shape(
    lambda *args: decode.start(policy, axes, config, *args, columns),
    params,
    prompts,
    key,
  )
  state = jax.tree.map(lambda leaf: described(leaf.shape, leaf.dtype), state)
  run = jax.jit(
    lambda *args: decode.run(policy, axes, config, *args, columns),
    donate_argnums=2,
  )
  text = run.lower(params, key, state).compile().as_text()
  found = sum(one.num_bytes for one in costs.costs(hlo.Module(text), {}))
  cache = state.cache.prompt, state.cache.completion
  return (
    found / columns,
    sum(leaf.size * 2 for leaf in jax.tree.leaves((params, cache))),
  )
