"""Times rollouts of a model of Qwen3-0.6B's shape, with random weights.

python -m experiments.bench.rollout --dtype=float32
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

from absl import flags
import flax.linen as nn
import jax
import jax.numpy as jnp

from dppo_jax import parallel
from dppo_jax.base import Params, Prompts
from dppo_jax.configs import default
from dppo_jax.experiments.bench import timing
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.policy import make_policy
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.runtime import cli
from dppo_jax.sampling.decode import sample
from dppo_jax.sampling.plain import plain_sampling

# Flags are defined only as a command: other benchmarks import this module.
if __name__ == '__main__':
  _ROWS = flags.DEFINE_integer('rows', 8, 'B.')
  _PROMPT = flags.DEFINE_integer('prompt_length', 64, 'P.')
  _NEW = flags.DEFINE_integer('new_tokens', 32, 'Per row.')
  _TOP_K = flags.DEFINE_integer('top_k', 20, 'K.')
  _LAYERS = flags.DEFINE_integer('layers', 28, 'Of the model.')
  _DTYPE = flags.DEFINE_string('dtype', 'float32', 'Of weights and arithmetic.')
  _REPEATS = flags.DEFINE_integer('repeats', 5, 'Rounds.')
  _OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')
_SHAPE = dict(vocab_size=151_936, d_model=1024, num_heads=16, num_kv_heads=8)
_SHAPE |= dict(head_dim=128, d_ff=3072, rope_theta=1e6)


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  shape = RolloutShape(
    model=random_model(_LAYERS.value, _DTYPE.value),
    rows=_ROWS.value,
    prompt_length=_PROMPT.value,
    new_tokens=_NEW.value,
    top_k=_TOP_K.value,
  )
  found = timing.compare(make_variants(shape), _REPEATS.value)
  result = results(shape, found)
  print(timing.table([('', ''), *((k, f'{v:.3f}') for k, v in result.items())]))
  result |= {name: time._asdict() for name, time in found.items()}
  result['shape'] = dataclasses.asdict(shape)
  name = f'rollout-{_DTYPE.value}-b{shape.rows}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0


def random_model(layers: int, dtype: str) -> TransformerConfig:
  """Shape of Qwen3-0.6B with so many layers, in a dtype."""
  model = default.get_config().to_dict()['model']
  model |= dict(_SHAPE, num_layers=layers, dtype=dtype)
  model.pop('pretrained')
  return TransformerConfig(**model)


PREFILL, DECODE, BARE, COPY = 'two tokens', 'all', 'all, no top-K', 'copy'


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutShape:
  """Sizes of the problem.

  Attributes:
    model: the transformer; its dtype is also that of the weights.
    rows: B.
    prompt_length: P.
    new_tokens: R, per row.
    top_k: K.
  """

  model: TransformerConfig
  rows: int
  prompt_length: int
  new_tokens: int
  top_k: int


def decode_bytes(shape: RolloutShape) -> float:
  """Bytes that a decode step must read: all weights, and the KV cache."""
  model = shape.model
  size = jnp.dtype(model.dtype).itemsize
  context = shape.prompt_length + shape.new_tokens / 2
  cached = 2 * model.num_layers * model.num_kv_heads * model.head_dim
  return size * (_num_parameters(model) + shape.rows * context * cached)


def results(
  shape: RolloutShape, found: Mapping[str, timing.Timing]
) -> dict[str, Any]:
  """Rates and ratios of the timed variants of `make_variants`."""
  wall = {name: time.wall for name, time in found.items()}
  seconds = wall[DECODE] - wall[PREFILL]
  bare = wall[BARE] - wall[PREFILL]
  # A copy reads and writes the weights: twice their bytes.
  copied = decode_bytes(dataclasses.replace(shape, rows=0))
  speed = decode_bytes(shape) * shape.new_tokens / seconds
  return {
    'decode_tokens_per_s': shape.rows * shape.new_tokens / seconds,
    'throughput_with_top_k_over_without': bare / seconds,
    'bytes_per_s_over_those_of_a_copy': speed / (2 * copied / wall[COPY]),
    'until_the_second_token_s': wall[PREFILL],
    'all_tokens_per_s': shape.rows * (shape.new_tokens + 2) / wall[DECODE],
  }


def make_variants(shape: RolloutShape) -> Mapping[str, Callable[[], Any]]:
  """Rollouts of two tokens, of all with and without top-K stats; and a copy.

  Two tokens include the prefill, the preparation of weights and one step.
  """
  model = shape.model
  mesh = parallel.make_mesh(1, 1, 1, jax.devices()[:1])
  policy = make_policy(model, mesh)
  params = random_params(model)
  axes = VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)
  tokens = jax.random.randint(
    jax.random.PRNGKey(1), (shape.rows, shape.prompt_length), 2, 20
  )
  prompts = Prompts(
    tokens=tokens,
    mask=jnp.ones(tokens.shape, bool),
    example_id=jnp.arange(shape.rows, dtype=jnp.int32),
  )

  def draw(new_tokens: int, top_k: int) -> Callable[[], Any]:
    config = plain_sampling(new_tokens, top_k=top_k)
    run = jax.jit(
      lambda params, key: sample(policy, axes, config, params, prompts, key)
    )
    key = jax.random.PRNGKey(2)
    return lambda: run(params, key)

  @jax.jit
  def copy(params: Params) -> Params:
    return jax.tree.map(lambda leaf: -leaf, params)

  return {
    PREFILL: draw(2, shape.top_k),
    DECODE: draw(shape.new_tokens + 2, shape.top_k),
    BARE: draw(shape.new_tokens + 2, 0),
    COPY: lambda: copy(params),
  }


def shapes(model: TransformerConfig) -> Any:
  """Of the parameters."""
  init = make_policy(model).init
  return nn.unbox(jax.eval_shape(init, jax.random.PRNGKey(0)))


def _num_parameters(model: TransformerConfig) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(shapes(model)))


def random_params(model: TransformerConfig) -> Params:
  """Random weights of a model, in its dtype."""
  dtype = jnp.dtype(model.dtype)

  def draw(path: Any, leaf: Any) -> Any:
    name = jax.tree_util.keystr(path)
    key = jax.random.fold_in(jax.random.PRNGKey(0), sum(map(ord, name)))
    noise = 0.02 * jax.random.normal(key, leaf.shape, dtype)
    return noise + 1 if name.endswith("'scale']") else noise

  return jax.tree_util.tree_map_with_path(draw, shapes(model))


if __name__ == '__main__':
  cli.run(main)
