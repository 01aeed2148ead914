#!/usr/bin/env bash
# jax 0.10.2 on a CPU: `jax.lax.top_k` is compiled to a TopK call, until its result
# is sliced again in the same program: `v - v[:, :1]`, the usual shift by the largest,
# sorts every row as a whole instead. At 64 rows of 32,768 and k = 64 that took a
# hundred times as long (0.28 s, 0.004 s of CPU time). The slice is merged with that of
# the sort's output, and what is left is no top-k to the rewriter.
# `jax.lax.optimization_barrier(v)` before it keeps the call.
#
# Output seen:
#   v * 2                 sorts 0, TopK calls 1
#   v - v[:, :1]          sorts 1, TopK calls 0
#   the same, behind a barrier: sorts 0, TopK calls 1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2

cat > "$folder/sorts.py" << 'END'
import re, sys
import jax, jax.numpy as jnp

def count(use):
  def run(x):
    return use(jax.lax.top_k(x, 64)[0])
  text = jax.jit(run).lower(jnp.zeros((64, 32768))).compile().as_text()
  found = len(re.findall(r' sort\(', text)), len(re.findall(r'"TopK"', text))
  return found

def shift(v):
  return v - v[:, :1]

plain = count(lambda v: v * 2)
sliced = count(shift)
kept = count(lambda v: shift(jax.lax.optimization_barrier(v)))
print('v * 2                 sorts %d, TopK calls %d' % plain)
print('v - v[:, :1]          sorts %d, TopK calls %d' % sliced)
print('the same, behind a barrier: sorts %d, TopK calls %d' % kept)
sys.exit((plain, sliced, kept) != ((0, 1), (1, 0), (0, 1)))
END
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/sorts.py"
