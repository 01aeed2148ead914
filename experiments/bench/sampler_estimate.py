"""Estimates token sampling against the head's product by the TPU's compiler.

python -m experiments.bench.sampler_estimate --topology=v5e:2x2
"""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
import sys
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from dppo_jax import parallel
from dppo_jax.base import Array
from dppo_jax.experiments.bench import sampler as measured
from dppo_jax.experiments.bench import timing
from dppo_jax.ops import products
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.planning.aot import child, costs, hlo, topologies
from dppo_jax.runtime import cli
from dppo_jax.sampling.next_token import sample_token

# Flags are defined only as a command: tests import this module.
if __name__ == '__main__':
  _TOPOLOGY = flags.DEFINE_string('topology', 'v5e:2x2', 'A TPU slice.')
  _ROWS = flags.DEFINE_integer('rows', 64, 'B.')
  _WIDTH = flags.DEFINE_integer('width', 2048, 'D.')
  _VOCABULARY = flags.DEFINE_integer('vocabulary', 151_936, 'V.')
  _TOP_K = flags.DEFINE_integer('top_k', 20, 'K.')
  _OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')
  _HERE = flags.DEFINE_bool(
    child.FLAG.strip('-'), False, 'Internal: the environment is prepared.'
  )


def main() -> int:
  """Compiles, prints and writes; returns the exit code."""
  if not _HERE.value:
    return child.run(
      'dppo_jax.experiments.bench.sampler_estimate', sys.argv[1:]
    )
  shape = measured.SamplerShape(
    rows=_ROWS.value,
    width=_WIDTH.value,
    vocabulary=_VOCABULARY.value,
    top_k=_TOP_K.value,
    dtype='bfloat16',
  )
  found = estimate(_TOPOLOGY.value, shape)
  rows = [('', 'cycles', '/ product', 'passes over the logits')]
  for name, one in found.items():
    ratio = f'{one.cycles / found[measured.PRODUCT].cycles:.3f}'
    rows.append((name, f'{one.cycles:.4g}', ratio, f'{one.passes:g}'))
  print(timing.table(rows))
  result = {name: dataclasses.asdict(one) for name, one in found.items()}
  result['shape'] = dataclasses.asdict(shape)
  name = f'sampler_estimate-{_TOPOLOGY.value.partition(":")[0]}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0


ALONE, TOGETHER = 'sampling', 'product and sampling'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A program, by the compiler.

  Attributes:
    cycles: of what has an estimate; sorts, TopK and gathers of a few blocks
      have none.
    passes: times that all logits are read, the product's own aside.
    unestimated: bytes of the largest result without an estimate.
  """

  cycles: float
  passes: float
  unestimated: float


def estimate(
  topology: str, shape: measured.SamplerShape
) -> Mapping[str, Estimate]:
  """The head's product, sampling from logits in memory, and both at once.

  Args:
    topology: a TPU slice, of which one device is used.
    shape: sizes.

  Raises:
    ValueError: libtpu is missing or does not know the topology.
  """
  devices = topologies.describe(topologies.parse(topology))[:1]
  mesh = parallel.make_mesh(1, 1, 1, devices)
  axes = VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)
  where = NamedSharding(mesh, PartitionSpec())

  def described(dtype: Any, *sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype, sharding=where)

  def draw(logits: Array, uniform: Array) -> Any:
    return sample_token(
      axes, logits, uniform, temperature=1.0, top_k=shape.top_k
    )

  project = functools.partial(products.einsum_f32, 'bd,vd->bv')

  def both(hidden: Array, head: Array, uniform: Array) -> Any:
    return draw(project(hidden, head), uniform)

  dtype = jnp.dtype(shape.dtype)
  hidden = described(dtype, shape.rows, shape.width)
  head = described(dtype, shape.vocabulary, shape.width)
  logits = described(jnp.float32, shape.rows, shape.vocabulary)
  uniform = described(jnp.float32, shape.rows)
  return {
    measured.PRODUCT: _estimate(project, logits.size, hidden, head),
    ALONE: _estimate(draw, logits.size, logits, uniform),
    TOGETHER: _estimate(both, logits.size, hidden, head, uniform),
  }


def _estimate(run: Any, num_logits: int, *shapes: Any) -> Estimate:
  lowered: Any = jax.jit(run).lower(*shapes)
  module = hlo.Module(lowered.compile().as_text())
  found = costs.costs(module, {})
  return Estimate(
    cycles=costs.cycles(found),
    passes=costs.passes(module, 4.0 * num_logits),
    unestimated=max(
      (hlo.type_bytes(one.shape) for one in found if one.cycles is None),
      default=0.0,
    ),
  )


if __name__ == '__main__':
  cli.run(main)
