#!/usr/bin/env bash
# orbax-checkpoint 0.12.8, jax 0.10.2: saving an array that every device holds
# compiles programs, one for each device and each shape: by default each replica
# writes a part of its own, which is cut out of it on its device. Arrays that are
# split over the devices are copied to the host, and nothing is compiled. One would
# guess that saving compiles nothing at all, or a program for each shape; a state
# with 50 shapes on 8 devices compiles 400 before its first checkpoint.
#
# Output seen:
#   1 shapes  replicated  4 programs
#   1 shapes  split  0 programs
#   3 shapes  replicated  12 programs
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8
cat > "$folder/program.py" << 'PROGRAM'
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

_, path, num_shapes, how = sys.argv
compiled = []


def listen(event, seconds, **about):
  if event.endswith('backend_compile_duration'):
    compiled.append(about)


mesh = jax.sharding.Mesh(np.array(jax.devices()), ('x',))
spec = jax.sharding.PartitionSpec(*(['x'] if how == 'split' else []))
where = jax.sharding.NamedSharding(mesh, spec)
tree = {
  str(n): jax.device_put(np.ones(4 * n, np.float32), where)
  for n in range(2, 2 + int(num_shapes))
}
jax.monitoring.register_event_duration_secs_listener(listen)
with ocp.StandardCheckpointer() as checkpointer:
  checkpointer.save(path, tree)
  checkpointer.wait_until_finished()
print(len(compiled))
PROGRAM

# number of shapes, how the arrays lie on the devices, number of programs.
try() {
  local seen
  seen=$(JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 \
    "$folder/venv/bin/python" "$folder/program.py" "$folder/$1$2" "$1" "$2")
  echo "$1 shapes  $2  $seen programs"
  [ "$seen" = "$3" ]
}

try 1 replicated 4
try 1 split 0
try 3 replicated 12
