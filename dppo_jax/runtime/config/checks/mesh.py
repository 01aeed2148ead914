"""Problems of a mesh: sizes that do not divide, and the nearest that do."""

from collections.abc import Iterator, Mapping
import math
from typing import Any

from dppo_jax import parallel
from dppo_jax.runtime.config.tokenizer import vocabulary_size

Config = Mapping[str, Any]


def mesh_problems(config: Config, num_devices: int) -> Iterator[str]:
  """Sizes of a model or a batch that the mesh does not divide.

  Args:
    config: plain nested dicts with the keys of configs/default.py, whose values
      are in their ranges.
    num_devices: devices of the mesh.

  Yields:
    Path, what was got and the nearest that fits, a sentence each.
  """
  try:
    data, fsdp, tensor, expert = parallel.axis_sizes(
      **config['mesh'], num_devices=num_devices
    )
  except ValueError as error:
    yield f'{error}{_more_devices(config["mesh"], num_devices)}'
    return
  sizes = {'fsdp': fsdp, 'tensor': tensor, 'expert': expert}
  if expert > 1 and not config['model']['num_experts']:
    yield (
      f'mesh.expert: got {expert}, and model.num_experts=0 leaves nothing to'
      ' split over it; leave it at 1 and use mesh.data.'
    )
  model = config['model']
  if model['shard_attention'] == 'columns' and not model['shard_sequence']:
    yield (
      "model.shard_attention: got 'columns', and model.shard_sequence=False"
      ' keeps all columns of a row on every device; set it to True, or split'
      " 'heads'."
    )
  for axis, arrays in _split(config).items():
    yield from _misfits(axis, sizes[axis], arrays, num_devices)
  yield from _batch(config, data * fsdp * expert)


def _more_devices(mesh: Mapping[str, int], num_devices: int) -> str:
  """How to get by where the axes that are set need more than there are."""
  needed = math.prod(size for size in mesh.values() if size > 0)
  if needed <= num_devices:
    return ''
  return (
    f' At least {needed} are needed: set the axes to 1, plan the run with'
    f' --dry_run --num_devices={needed}, or have the CPU act as so many:'
    f' JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES={needed}.'
  )


def _split(config: Config) -> dict[str, dict[str, int]]:
  """Mesh axis -> path of a size -> the size, which the axis must divide."""
  model = config['model']
  tensor = {
    'model.num_heads': model['num_heads'],
    'model.num_kv_heads': model['num_kv_heads'],
    'model.d_ff': model['d_ff'],
    'the vocabulary': vocabulary_size(config),
  }
  expert = {}
  if model['num_experts']:
    tensor['model.moe_intermediate_size'] = model['moe_intermediate_size']
    expert['model.num_experts'] = model['num_experts']
  if model['shard_sequence']:
    limit = config['sampling']['max_completion_length']
    tensor['data.max_prompt_length'] = config['data']['max_prompt_length']
    tensor['sampling.max_completion_length'] = limit
  fsdp = {'model.d_model': model['d_model']}
  return {'tensor': tensor, 'expert': expert, 'fsdp': fsdp}


def _misfits(
  axis: str, size: int, arrays: Mapping[str, int], num_devices: int
) -> Iterator[str]:
  """Sizes that an axis does not divide, and the nearest that divides all."""
  legal = [
    n
    for n in range(1, num_devices + 1)
    if num_devices % n == 0 and not any(of % n for of in arrays.values())
  ]
  near = [max(n for n in legal if n <= size)]
  near += [n for n in legal if n > size][:1]
  for path, of in arrays.items():
    if of % size:
      yield (
        f'mesh.{axis}: got {size}, which does not divide {path}={of}; the'
        f' nearest that divides the model and the {num_devices} devices:'
        f' {" or ".join(map(str, near))}.{_padding(path, of, size)}'
      )


def _padding(path: str, of: int, size: int) -> str:
  """How a size can be grown that nothing else depends on."""
  grown = -(-of // size) * size
  if path == 'the vocabulary':
    return f' Or pad it: model.vocab_size={grown}, where no weights are loaded.'
  if path.endswith('_length'):
    return f' Or set {path}={grown}.'
  return ''


def _batch(config: Config, shards: int) -> Iterator[str]:
  data, learner = config['data'], config['learner']
  prompts_a_step, size = data['num_prompts'], data['group_size']
  minibatches = learner['num_minibatches']
  if prompts_a_step % minibatches:
    yield (
      f'learner.num_minibatches: got {minibatches}; minibatches are made of'
      ' whole groups, so it must divide'
      f' data.num_prompts={prompts_a_step}.'
    )
    return
  rows = prompts_a_step // minibatches * size
  parts = learner['num_microbatches'] or 1  # 0: a number that divides.
  if rows % parts:
    yield (
      f'learner.num_microbatches: got {parts}; a minibatch has {rows} rows'
      f' ({prompts_a_step // minibatches} prompts of data.group_size={size}),'
      ' which it must divide.'
    )
  elif (rows // parts) % shards:
    legal = [
      n for n in range(1, rows + 1) if rows % n == 0 and not rows // n % shards
    ]
    near = min(legal, key=lambda n: abs(n - parts), default=0)
    yield (
      f'learner.num_microbatches: a microbatch has {rows // parts} rows, which'
      f' the {shards} batch shards of the mesh (data times fsdp times expert)'
      ' do not divide; change it, data.num_prompts or the mesh'
      + (f'; the nearest that fits is {near}.' if near else '.')
    )
  paths = ['data.num_prompts', 'sft.batch_size']
  paths.append('evaluation.num_prompts')
  if config['rewards']['model']:
    paths.append('rewards.model_batch_size')
  for path in paths:
    section, key = path.split('.')
    got = config[section][key]
    if got % shards:
      nearest = max(shards, round(got / shards) * shards)
      yield (
        f'{path}: got {got}, which the {shards} batch shards of the mesh do'
        f' not divide; the nearest that fits is {nearest}.'
      )


def slot_problems(config: Mapping[str, Any], num_devices: int) -> Iterator[str]:
  """Problems of `sampling.num_slots`, a whole number of at least 0.

  Args:
    config: plain nested dicts with the keys of configs/default.py.
    num_devices: of the mesh.

  Yields:
    Path, what was got and what is allowed, a sentence each.
  """
  got, data = config['sampling']['num_slots'], config['data']
  rows = data['num_prompts'] * data['group_size']
  if got > rows:
    yield (
      f'sampling.num_slots: got {got}; a step samples {rows} completions'
      f' (data.num_prompts={data["num_prompts"]} times'
      f' data.group_size={data["group_size"]}); set at most {rows}, or 0 for'
      ' all of them.'
    )
    return
  try:
    sizes = parallel.axis_sizes(**config['mesh'], num_devices=num_devices)
  except ValueError:
    return  # `mesh` is wrong, which is said elsewhere.
  shards = sizes[0] * sizes[1] * sizes[3]
  if got % shards:
    below = got // shards * shards
    legal = [n for n in (below, below + shards) if 0 < n <= rows]
    yield (
      f'sampling.num_slots: got {got}, which the {shards} batch shards of'
      ' the mesh (data times fsdp times expert) do not divide; the nearest'
      f' that fit: {" and ".join(map(str, legal))}.'
    )
