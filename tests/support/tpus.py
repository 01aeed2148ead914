"""Code that runs beside a compiler for TPUs or GPUs, where it is installed."""

import os
import subprocess
import sys

import pytest

from dppo_jax.planning.aot import child, topologies

# The gate installs no libtpu: half a gigabyte, and it is not free software.
needs_libtpu = pytest.mark.skipif(
  not topologies.can_compile(), reason='libtpu, of the extra tpu, is missing'
)

needs_cuda_plugin = pytest.mark.skipif(
  not topologies.can_compile('gpu'),
  reason="JAX's CUDA plugin, of the extra gpu_plan, is missing",
)


def run(code):
  """What code prints in a process of its own, line by line."""
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, **child.ENVIRONMENT},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()
