"""Measures head, sampling, decoding, train step and a run on this device.

python -m experiments.bench.kit --out=DIR

In under eight minutes on an accelerator, compilation included, and with the
compiler's estimates beside the times where it gives any. --smoke takes
seconds on a CPU and says only that all of it runs.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
import tempfile
import time
from typing import Any

from absl import flags
import jax

from dppo_jax import hardware
from dppo_jax.configs import quickstart, tiny
from dppo_jax.experiments.bench import (
  head,
  rollout,
  sampler,
  timing,
  train_step,
)
from dppo_jax.planning.aot import costs, hlo
from dppo_jax.runtime import cli, loop
from dppo_jax.runtime.config.build import build_experiment
from dppo_jax.runtime.storage import shared_workdir

# Flags are defined only as a command: tests import this module.
if __name__ == '__main__':
  _SMOKE = flags.DEFINE_bool('smoke', False, 'Sizes for a test of the kit.')
  _MINUTES = flags.DEFINE_float('minutes', 7.5, 'No part begins after them.')
  _OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')


def main() -> int:
  """Measures, prints and writes; returns the exit code."""
  sizes = smoke() if _SMOKE.value else full()
  found = measure(sizes, _MINUTES.value)
  rows = [('', '')]
  for part, values in found.items():
    rows += [(f'{part}: {name}', _show(v)) for name, v in values.items()]
  print(timing.table(rows))
  name = 'kit-smoke' if _SMOKE.value else 'kit'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, found))
  return int(any('failed' in values for values in found.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
  """Sizes of all parts.

  Attributes:
    head: of the LM head.
    sampler: of the sampling of a token.
    rollout: of the rollouts.
    update: config of the train step.
    run: config of the run that learns.
    repeats: of each measurement.
  """

  head: head.HeadShape
  sampler: sampler.SamplerShape
  rollout: rollout.RolloutShape
  update: Any
  run: Any
  repeats: int


def full() -> Sizes:
  """For an accelerator with 16 GB or more; the run is the quickstart."""
  update: Any = quickstart.get_config()
  update.model.update(
    num_layers=8,
    d_model=1024,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    d_ff=3072,
    dtype='bfloat16',
    remat='full',
  )
  update.data.update(num_prompts=4, group_size=2, max_prompt_length=512)
  update.sampling.max_completion_length = 1536
  return Sizes(
    head=head.HeadShape(
      tokens=8192,
      width=2048,
      vocabulary=151_936,
      top_k=20,
      head_chunk_tokens=0,
      dtype='bfloat16',
    ),
    sampler=sampler.SamplerShape(
      rows=64, width=2048, vocabulary=151_936, top_k=20, dtype='bfloat16'
    ),
    rollout=rollout.RolloutShape(
      model=rollout.random_model(28, 'bfloat16'),
      rows=32,
      prompt_length=256,
      new_tokens=256,
      top_k=20,
    ),
    update=update,
    run=quickstart.get_config(),
    repeats=5,
  )


def smoke() -> Sizes:
  """For any device: seconds, and figures that mean nothing."""
  update: Any = tiny.get_config()
  run: Any = tiny.get_config()
  update.data.update(num_prompts=2, group_size=2)
  run.num_steps = 2
  run.data.update(num_prompts=4, group_size=2)
  run.learner.update(num_minibatches=1, share_prompt_prefix=False)
  run.sft.num_steps = 0
  run.evaluation.update(greedy=False, num_prompts=4, final_num_prompts=4)
  model = dataclasses.replace(
    rollout.random_model(1, 'float32'),
    vocab_size=64,
    d_model=16,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    d_ff=32,
  )
  return Sizes(
    head=head.HeadShape(
      tokens=64,
      width=16,
      vocabulary=512,
      top_k=5,
      head_chunk_tokens=32,
      dtype='float32',
    ),
    sampler=sampler.SamplerShape(
      rows=4, width=16, vocabulary=512, top_k=5, dtype='float32'
    ),
    rollout=rollout.RolloutShape(
      model=model, rows=2, prompt_length=3, new_tokens=4, top_k=5
    ),
    update=update,
    run=run,
    repeats=2,
  )


def measure(
  sizes: Sizes, minutes: float, note: Callable[[str], None] = timing.say
) -> dict[str, dict[str, Any]]:
  """Figures by part; of a part that fails, the reason.

  Args:
    sizes: of the parts.
    minutes: after which no further part begins.
    note: receives progress lines.
  """
  begin = time.monotonic()
  found: dict[str, dict[str, Any]] = {}
  for name, part in _PARTS.items():
    spent = time.monotonic() - begin
    if spent > 60 * minutes:
      found[name] = {'skipped': f'after {spent:.0f} s'}
      continue
    note(f'{name}, after {spent:.0f} s')
    try:
      found[name] = part(sizes, note)
    # Out of memory, above all: the other parts may still fit.
    except (RuntimeError, ValueError) as error:
      found[name] = {'failed': str(error).partition('\n')[0]}
    found[name]['took_s'] = round(time.monotonic() - begin - spent, 1)
  return found


def _head(sizes: Sizes, note: Callable[[str], None]) -> dict[str, Any]:
  only = ['Top-K TV', 'exact TV']
  programs = head.make_variants(sizes.head, only)
  runs = {name: program.run for name, program in programs.items()}
  times = timing.compare(runs, sizes.repeats, note)
  shape, bare = sizes.head, times[head.BARE]
  flop = 6 * shape.tokens * shape.width * shape.vocabulary
  # One turn of a loop is all of its chunks.
  rows = head.layout(shape).head_chunk_tokens
  trips = {'': -(-shape.tokens // rows)}
  result: dict[str, Any] = {'bare_flop_per_s': flop / bare.wall}
  estimated = {
    name: costs.cycles(costs.costs(hlo.Module(program.text), trips))
    for name, program in programs.items()
  }
  for name in only:
    result[f'{name} / bare'] = times[name].seconds / bare.seconds
    if estimated[head.BARE]:
      ratio = estimated[name] / estimated[head.BARE]
      result[f'{name} / bare, by the compiler'] = ratio
  device = hardware.find_device(jax.devices()[0].device_kind)
  if device is not None:
    result['bare_flop_utilization'] = flop / bare.wall / device.peak
  return result


def _sampler(sizes: Sizes, note: Callable[[str], None]) -> dict[str, Any]:
  variants = sampler.make_variants(sizes.sampler)
  times = timing.compare(variants, sizes.repeats, note)
  product = times[sampler.PRODUCT].seconds
  return {
    f'{name} / product': one.seconds / product
    for name, one in times.items()
    if name != sampler.PRODUCT
  }


def _decode(sizes: Sizes, note: Callable[[str], None]) -> dict[str, Any]:
  shape = sizes.rollout
  times = timing.compare(rollout.make_variants(shape), sizes.repeats, note)
  result = rollout.results(shape, times)
  device = hardware.find_device(jax.devices()[0].device_kind)
  if device is not None:
    steps = result['decode_tokens_per_s'] / shape.rows
    speed = rollout.decode_bytes(shape) * steps
    result['bandwidth_utilization'] = speed / device.bandwidth
  return result


def _update(sizes: Sizes, note: Callable[[str], None]) -> dict[str, Any]:
  experiment = train_step.build(sizes.update)
  variants = train_step.make_variants(experiment)
  times = timing.compare(variants, sizes.repeats, note)
  return train_step.results(experiment, times)


def _run(sizes: Sizes, note: Callable[[str], None]) -> dict[str, Any]:
  del note  # The run says what it does.
  experiment = build_experiment(sizes.run, jax.device_count())
  with tempfile.TemporaryDirectory() as folder:
    named = str(pathlib.Path(folder) / 'run')
    opened = shared_workdir.opened(named, experiment.resolved, extend=False)
    with opened as workdir:
      facts: Mapping[str, Any] = loop.run(experiment, workdir)
  return {
    name: value
    for name, value in facts.items()
    if isinstance(value, int | float)
  }


_PARTS: Mapping[str, Callable[[Sizes, Any], dict[str, Any]]] = {
  'head': _head,
  'sampler': _sampler,
  'decode': _decode,
  'train step': _update,
  'run': _run,
}


def _show(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)


if __name__ == '__main__':
  cli.run(main)
