#!/usr/bin/env bash
# jax 0.10.2: with jax_include_full_tracebacks_in_locations off, names given with
# jax.named_scope, and those of the enclosing transformations, are gone from the
# compiled program: op_name is the bare primitive. The option's words are of
# tracebacks only; one would guess that names, which cost a line each, stay. What
# reads a profile or the text of a program by scope then finds nothing.
#
# Output seen:
#   True   jit(f)/outer/while
#   False  while
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2
cat > "$folder/program.py" << 'PROGRAM'
import re
import sys

import jax

jax.config.update(
  'jax_include_full_tracebacks_in_locations', sys.argv[1] == 'True'
)


def f(n):
  with jax.named_scope('outer'):
    return jax.lax.fori_loop(0, n, lambda i, x: x * 3 + i, n)


text = jax.jit(f).lower(5).compile().as_text()
(line,) = [line for line in text.splitlines() if ' while(' in line]
print(re.search('op_name="([^"]*)"', line)[1])
PROGRAM

# option, name of the loop.
try() {
  local name
  name=$(JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/program.py" "$1")
  printf '%-6s %s\n' "$1" "$name"
  [ "$name" = "$2" ]
}

try True jit\(f\)/outer/while
try False while
