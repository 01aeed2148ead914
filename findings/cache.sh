#!/usr/bin/env bash
# jax 0.10.2: a file of the persistent compilation cache that was cut short (its
# writer was killed, or the disk was full: files are written in place) is never
# replaced. Every later process warns, compiles the program again, and leaves the
# cut file where it is, although compiling gave what belongs there. Only deleting
# the file helps. One would guess that a damaged entry is a miss, and overwritten.
#
# Output seen:
#   first    whole   0 warnings
#   second   cut     1 warnings
#   third    cut     1 warnings
#   deleted  whole   0 warnings
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2
cat > "$folder/program.py" << 'PROGRAM'
import sys

import jax
import jax.numpy as jnp

jax.config.update('jax_compilation_cache_dir', sys.argv[1])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
jax.jit(lambda x: jnp.sum(jnp.sin(x)))(jnp.arange(4.0)).block_until_ready()
PROGRAM

# name, what the file must be afterwards, number of warnings.
try() {
  JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/program.py" \
    "$folder/cache" 2> "$folder/said"
  local file state=whole warnings
  file=$(echo "$folder"/cache/jit__lambda*-cache)
  [ "$(stat -c %s "$file")" -gt 40 ] || state=cut
  warnings=$(grep -c 'Error reading persistent compilation cache' \
    "$folder/said" || true)
  printf '%-8s %-7s %s warnings\n' "$1" "$state" "$warnings"
  [ "$state $warnings" = "$2 $3" ]
}

try first whole 0
truncate -s 40 "$folder"/cache/jit__lambda*-cache
try second cut 1
try third cut 1
rm "$folder"/cache/jit__lambda*-cache
try deleted whole 0
