#!/usr/bin/env bash
# jax 0.10.2 on a CPU: a buffer that a while_loop carries is copied as a whole at
# every turn if an inner loop reads it by blocks before dynamic_update_slice writes
# one row of it. The write does not depend on the inner loop's result, so XLA does
# not order the two, and keeps the old buffer. Written first and read then, the same
# loop copies nothing. Donation changes neither.
#
# Output seen:
#   read, then write: 2 copies; write, then read: 0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2

cat > "$folder/copies.py" << 'END'
import re, sys
import jax, jax.numpy as jnp

BLOCK, LENGTH = 8, 64

def read(cache, end):
  def add(i, total):
    return total + jax.lax.dynamic_slice_in_dim(cache, i * BLOCK, BLOCK).sum()
  return jax.lax.fori_loop(0, end, add, 0.0)

def copies(write_first):
  def step(carry):
    i, total, cache = carry
    row = jnp.full((1, 4), i, jnp.float32)
    new = jax.lax.dynamic_update_slice_in_dim(cache, row, i, 0)
    seen = read(new if write_first else cache, i // BLOCK + 1)
    return i + 1, total + seen, new
  def run(n, cache):
    return jax.lax.while_loop(lambda c: c[0] < n, step, (0, 0.0, cache))
  text = jax.jit(run, donate_argnums=1).lower(
    9, jnp.zeros((LENGTH, 4))).compile().as_text()
  return len(re.findall(r'= f32\[64,4\]\S* copy\(', text))

found = copies(False), copies(True)
print('read, then write: %d copies; write, then read: %d' % found)
sys.exit(not (found[0] > 0 and found[1] == 0))
END
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/copies.py"
