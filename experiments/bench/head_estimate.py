"""Estimates the LM-head loss against its bare GEMMs by the TPU's compiler.

python -m experiments.bench.head_estimate --topology=v5e:2x4 --tensor=8
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
import sys
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dppo_jax import hardware, parallel
from dppo_jax.base import Array
from dppo_jax.experiments.bench import head as measured
from dppo_jax.experiments.bench import timing
from dppo_jax.learner import loss as loss_lib
from dppo_jax.lm_head.fused_loss import head_loss
from dppo_jax.lm_head.inputs import VocabularyConfig
from dppo_jax.lm_head.vocabulary_shard import product
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.planning.aot import child, costs, hlo, topologies
from dppo_jax.runtime import cli

# Flags are defined only as a command: tests import this module.
if __name__ == '__main__':
  _TOPOLOGY = flags.DEFINE_string('topology', 'v5e:2x4', 'A TPU slice.')
  _TENSOR = flags.DEFINE_integer('tensor', 1, 'T, devices that share the head.')
  _TOKENS = flags.DEFINE_integer('tokens', 8192, 'N, a multiple of 32.')
  _WIDTH = flags.DEFINE_integer('width', 4096, 'D.')
  _VOCABULARY = flags.DEFINE_integer('vocabulary', 151_936, 'V.')
  _TOP_K = flags.DEFINE_integer('top_k', 20, 'K.')
  _CHUNK = flags.DEFINE_integer('head_chunk_tokens', 0, 'C; 0: by the device.')
  _OUT = flags.DEFINE_string('out', 'experiments/bench/results', 'Folder.')
  _HERE = flags.DEFINE_bool(
    child.FLAG.strip('-'), False, 'Internal: the environment is prepared.'
  )


def main() -> int:
  """Compiles, prints and writes; returns the exit code."""
  if not _HERE.value:
    return child.run('dppo_jax.experiments.bench.head_estimate', sys.argv[1:])
  shape = measured.HeadShape(
    tokens=_TOKENS.value,
    width=_WIDTH.value,
    vocabulary=_VOCABULARY.value,
    top_k=_TOP_K.value,
    head_chunk_tokens=_CHUNK.value,
    dtype='bfloat16',
  )
  found = estimate(_TOPOLOGY.value, _TENSOR.value, shape)
  bare = found[measured.BARE]
  rows = [('', 'cycles', '/ bare')]
  rows += [(k, f'{v:.4g}', f'{v / bare:.3f}') for k, v in found.items()]
  print(timing.table(rows))
  result = {
    'shape': dataclasses.asdict(shape),
    'cycles': found,
    'ratio': {name: cycles / bare for name, cycles in found.items()},
  }
  kind = _TOPOLOGY.value.partition(':')[0]
  name = f'head_estimate-{kind}-t{_TENSOR.value}'
  print('Result:', timing.write(pathlib.Path(_OUT.value), name, result))
  return 0


_VARIANTS = {
  'Top-K TV': (True, dict(divergence='topk_tv')),
  'Top-K TV + entropy': (True, dict(entropy_coefficient=0.01)),
  'exact TV': (False, dict(divergence='exact_tv')),
}


def estimate(
  topology: str,
  tensor: int,
  shape: measured.HeadShape,
  only: Sequence[str] = tuple(_VARIANTS),
) -> Mapping[str, float]:
  """Cycles on one device, of the bare GEMMs and of the fused losses.

  The head is f32 and cast in all of them, the anchor's is bf16 as a sampler
  holds it. All tokens count.

  Args:
    topology: a TPU slice of at least `tensor` devices.
    tensor: T.
    shape: sizes; C of 0 is by the device.
    only: losses to compile.

  Raises:
    ValueError: libtpu is missing or does not know the topology.
  """
  devices = topologies.describe(topologies.parse(topology))[:tensor]
  kind = devices[0].device_kind
  columns = shape.vocabulary // tensor
  rows = shape.head_chunk_tokens or hardware.head_chunk_tokens(kind, columns)
  mesh = parallel.make_mesh(1, 1, tensor, devices)
  axes = VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)
  layout = VocabularyConfig(axes=axes, head_chunk_tokens=rows, temperature=1.0)
  trips = {'': -(-shape.tokens // rows)}
  found = {measured.BARE: _bare(shape, columns, devices[0])}
  for name in only:
    k, options = _VARIANTS[name]
    config = measured.loss_config(**options)
    case = _shapes(shape, mesh, shape.top_k if k else 0)
    run = functools.partial(head_loss, layout, loss_lib.make_head_loss(config))
    both = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    found[name] = _cycles(jax.jit(both).lower(*case), trips)
  return found


def _cycles(lowered: Any, trips: Mapping[str, int]) -> float:
  module = hlo.Module(lowered.compile().as_text())
  return costs.cycles(costs.costs(module, trips))


def _bare(shape: measured.HeadShape, columns: int, device: Any) -> float:
  mesh = parallel.make_mesh(1, 1, 1, [device])
  where = NamedSharding(mesh, PartitionSpec())

  def described(rows: int, width: int, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, width), dtype, sharding=where)

  def products(head: Array, x: Array, d_logits: Array) -> Any:
    weights = head.astype(x.dtype)
    return (
      product(x, weights, 1, 1),
      product(d_logits, weights, 1, 0),
      product(d_logits, x, 0, 0),
    )

  dtype = jnp.dtype(shape.dtype)
  lowered = jax.jit(products).lower(
    described(columns, shape.width, jnp.float32),
    described(shape.tokens, shape.width, dtype),
    described(shape.tokens, columns, dtype),
  )
  return _cycles(lowered, {})


def _shapes(shape: measured.HeadShape, mesh: Mesh, k: int) -> tuple[Any, ...]:
  """Head, hidden states and targets, without K those of whole distributions."""
  whole = NamedSharding(mesh, PartitionSpec())
  split = NamedSharding(mesh, PartitionSpec(parallel.VOCAB_AXIS))

  def described(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)

  make = functools.partial(measured.case, shape, k, exact=not k)
  head, hidden, targets = jax.tree.map(described, jax.eval_shape(make))
  if targets.anchor_head is not None:
    anchor = jax.ShapeDtypeStruct(head.shape, hidden.dtype, sharding=split)
    targets = dataclasses.replace(targets, anchor_head=anchor)
  head = jax.ShapeDtypeStruct(head.shape, head.dtype, sharding=split)
  return head, hidden, targets


if __name__ == '__main__':
  cli.run(main)
