"""What the compiler makes of the pass, at sizes where only it is large."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import TokenStats
from dppo_jax.learner import loss as loss_lib
from dppo_jax.lm_head import inputs
from tests.support import head_cases, tpus

_LARGE, _DEEP = 8192, 64


def compiled(rows, length, head_chunk_tokens, mesh=None, divergence='topk_tv'):
  # Devices that are described only are named by shardings.
  where = parallel.replicated(mesh) if mesh is not None else None

  def shape(*size, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(size, dtype, sharding=where)

  token = shape(rows, length)
  ids = shape(rows, length, head_cases.K, dtype=jnp.int32)
  targets = inputs.Targets(
    tokens=shape(rows, length, dtype=jnp.int32),
    mask=shape(rows, length, dtype=bool),
    anchor=TokenStats(
      log_probs=token, top_ids=ids, top_log_probs=shape(*ids.shape)
    ),
    context=loss_lib.Context(
      weights=token,
      mask=shape(rows, length, dtype=bool),
      advantages=token,
      rollout_log_probs=token,
      anchor_log_probs=token,
      reference_log_probs=None,
    ),
  )
  config = head_cases.loss_config(divergence=divergence)
  run = head_cases.one_pass(config, head_chunk_tokens, mesh)
  hidden = shape(rows, length, _DEEP)
  return run.lower(shape(_LARGE, _DEEP), hidden, targets).compile()


def _sizes(text):
  """Elements of every array named in an HLO module."""
  found = re.findall(r'\b(?:f32|bf16|s32|u32|pred)\[([\d,]+)\]', text)
  return {int(np.prod([int(n) for n in dims.split(',')])) for dims in found}


def test_memory_is_that_of_a_chunk_whatever_the_tokens():
  chunk = 64
  short, long = (compiled(8, columns, chunk) for columns in (32, 128))
  sizes = [c.memory_analysis().temp_size_in_bytes for c in (short, long)]
  # Room for the buffers of a few bytes a token, which do grow.
  accumulator, tokens = _LARGE * _DEEP * 4, 8 * 128
  bound = 1.1 * chunk * _LARGE * 6 + accumulator
  assert sizes[1] <= bound
  assert sizes[1] - sizes[0] <= 4 * tokens * (_DEEP + 20)
  assert max(_sizes(long.as_text())) < tokens * _LARGE


def test_a_gather_of_the_logits_would_show():
  """The check above can fail: one chunk of all tokens is tokens x V."""
  whole = compiled(8, 32, 8 * 32)
  assert max(_sizes(whole.as_text())) >= 8 * 32 * _LARGE


def crossing(text):
  """(kind, elements) of every collective; shapes may be tuples."""
  found = []
  for line in text.splitlines():
    match = re.search(
      r'= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|'
      r'collective-permute)(?:-start)?\(',
      line,
    )
    if match:
      found += [(match[2], size) for size in _sizes(match[1])]
  return found


def test_what_crosses_the_vocabulary_axis():
  """Per token 4 (K + 3) bytes in two reductions, and dX in f32 in a third."""
  chunk = 64
  program = compiled(8, 32, chunk, parallel.make_mesh(1, 1, 8))
  found = crossing(program.as_text())
  assert {kind for kind, _ in found} == {'all-reduce'}
  sizes = sorted(size for _, size in found)
  assert sizes == [chunk, chunk * (head_cases.K + 2), chunk * _DEEP]


@tpus.needs_libtpu
def test_what_crosses_the_vocabulary_axis_of_a_tpu():
  """The same of the compiler for TPUs, for eight chips that are not here."""
  code = (
    'from dppo_jax import parallel\n'
    'from dppo_jax.planning.aot import topologies\n'
    'from tests.lm_head import test_fused_loss_compiled as case\n'
    "devices = topologies.describe(topologies.parse('v5e:2x4'))\n"
    'mesh = parallel.make_mesh(1, 1, 8, devices)\n'
    'print(case.crossing(case.compiled(8, 32, 64, mesh).as_text()))\n'
  )
  expected = [64, 64 * (head_cases.K + 2), 64 * _DEEP]
  assert tpus.run(code)[-1] == str([('all-reduce', n) for n in expected])
