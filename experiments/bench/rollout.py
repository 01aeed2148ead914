"""Times rollouts of a model shaped like Qwen3-0.6B, its weights random.

python -m experiments.bench.rollout --dtype=float32
"""

import dataclasses
import pathlib

from absl import flags

from configs import default
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.runtime import entry_point
from dppo_jax.runtime.bench import rollout, timing

_ROWS = flags.DEFINE_integer('rows', 8, 'B.')
_PROMPT = flags.DEFINE_integer('prompt_length', 64, 'P.')
_NEW = flags.DEFINE_integer('new_tokens', 32, 'Drawn in every row.')
_TOP_K = flags.DEFINE_integer('top_k', 20, 'K.')
_LAYERS = flags.DEFINE_integer('layers', 28, 'Of the model.')
_DTYPE = flags.DEFINE_string('dtype', 'float32', 'Of weights and arithmetic.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Rounds.')
_OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')
_SHAPE = dict(vocab_size=151_936, d_model=1024, num_heads=16, num_kv_heads=8)
_SHAPE |= dict(head_dim=128, d_ff=3072, rope_theta=1e6)


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  model = default.get_config().to_dict()['model']
  model |= dict(_SHAPE, num_layers=_LAYERS.value, dtype=_DTYPE.value)
  model.pop('pretrained')
  shape = rollout.RolloutShape(
    model=TransformerConfig(**model),
    rows=_ROWS.value,
    prompt_length=_PROMPT.value,
    new_tokens=_NEW.value,
    top_k=_TOP_K.value,
  )
  found = timing.compare(rollout.make_variants(shape), _REPEATS.value)
  wall = {name: time.wall for name, time in found.items()}
  seconds = wall[rollout.DECODE] - wall[rollout.PREFILL]
  bare = wall[rollout.BARE] - wall[rollout.PREFILL]
  # A copy reads and writes the weights: twice their bytes.
  copied = rollout.decode_bytes(dataclasses.replace(shape, rows=0))
  result = {
    'decode_tokens_per_s': shape.rows * shape.new_tokens / seconds,
    'throughput_with_top_k_over_without': bare / seconds,
    'bytes_per_s_over_those_of_a_copy': (
      rollout.decode_bytes(shape) * shape.new_tokens / seconds
    )
    / (2 * copied / wall[rollout.COPY]),
    'until_the_second_token_s': wall[rollout.PREFILL],
    'all_tokens_per_s': shape.rows
    * (shape.new_tokens + 2)
    / wall[rollout.DECODE],
  }
  print(timing.table([('', ''), *((k, f'{v:.3f}') for k, v in result.items())]))
  result |= {name: time._asdict() for name, time in found.items()}
  result['shape'] = dataclasses.asdict(shape)
  name = f'rollout-{_DTYPE.value}-b{shape.rows}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0


if __name__ == '__main__':
  entry_point.run(main)
