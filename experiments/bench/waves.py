"""Times a rollout batch with a long tail of lengths, in slots and at once.

python -m experiments.bench.waves
"""

import dataclasses
import pathlib

from absl import flags
import numpy as np

from configs import default
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.runtime import entry_point
from dppo_jax.runtime.bench import timing, waves

_PROMPTS = flags.DEFINE_integer('prompts', 64, 'N.')
_GROUP = flags.DEFINE_integer('group_size', 16, 'G.')
_AT_ONCE = flags.DEFINE_integer('rows_at_once', 16, 'S.')
_NEW = flags.DEFINE_integer('new_tokens', 256, 'R, the limit.')
_MEDIAN = flags.DEFINE_float('median', 32.0, 'Of the lengths, tokens.')
_SIGMA = flags.DEFINE_float('sigma', 1.0, 'Deviation of their logarithm.')
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Rounds.')
_OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; 1 if the share is below 90 %."""
  model = default.get_config().to_dict()['model']
  model |= dict(vocab_size=_NEW.value + 16)
  model.pop('pretrained')
  shape = waves.WavesShape(
    model=TransformerConfig(**model),
    prompts=_PROMPTS.value,
    group_size=_GROUP.value,
    prompt_length=32,
    new_tokens=_NEW.value,
    rows_at_once=_AT_ONCE.value,
    median=_MEDIAN.value,
    sigma=_SIGMA.value,
    top_k=20,
  )
  variants = waves.make_variants(shape)
  found = timing.compare(variants, _REPEATS.value)
  drawn = {name: run() for name, run in variants.items()}
  shares = {name: waves.useful_share(one) for name, one in drawn.items()}
  lengths = np.asarray(drawn[waves.STATIC].completion_mask).sum(axis=1)
  rows = [('', 'useful decode work', 'CPU or device s', 'wall s')]
  for name, time in found.items():
    took = f'{time.seconds:.2f}', f'{time.wall:.2f}'
    rows.append((name, f'{shares[name]:.3f}', *took))
  print(timing.table(rows))
  result = {
    'useful_decode_share': shares,
    'seconds': {name: time._asdict() for name, time in found.items()},
    'lengths': {
      'mean': float(lengths.mean()),
      'quantiles': {q: float(np.quantile(lengths, q)) for q in (0.5, 0.9, 1.0)},
    },
    'same_tokens': bool(
      (drawn[waves.STATIC].tokens == drawn[waves.REFILLED].tokens).all()
    ),
    'shape': dataclasses.asdict(shape),
  }
  name = f'waves-b{len(lengths)}-s{shape.rows_at_once}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0 if shares[waves.REFILLED] >= 0.9 else 1


if __name__ == '__main__':
  entry_point.run(main)
