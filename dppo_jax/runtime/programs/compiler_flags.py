"""Flags and options of the compiler where it compiles for CPUs."""

from collections.abc import Mapping
import importlib.metadata
import importlib.util
import os
from typing import Any

import jax

# Half of the time to compile. Steps take as long: those of the quickstart are
# the same bit for bit, those of a model of 135M sum in another order.
ON_CPU: Mapping[str, str] = {
  'xla_backend_optimization_level': '1',
  'xla_cpu_use_fusion_emitters': 'false',
}
_FLAGS = 'XLA_FLAGS'
# XLA ends the process at an unknown flag, as this one is to JAX 0.12.
_WITHOUT_EMITTERS = (0, 11)


def prefer_fast_compiling() -> None:
  """Adds `ON_CPU` to XLA_FLAGS, if there is no other device.

  Flags that are named there stand as they are. Call it before JAX looks for
  devices: XLA reads its flags once.
  """
  if not _is_cpu_alone():
    return
  given = os.environ.get(_FLAGS, '')
  flags = dict(ON_CPU)
  if jax.__version_info__ >= _WITHOUT_EMITTERS:
    del flags['xla_cpu_use_fusion_emitters']
  more = [f'--{flag}={v}' for flag, v in flags.items() if flag not in given]
  os.environ[_FLAGS] = ' '.join([given, *more]).strip()


def of_small_program(platform: str) -> dict[str, Any] | None:
  """Compiler options of a program that is sooner run than compiled.

  On a CPU it is not optimized: a quarter of the time to compile, and two to
  five times that to run, what libraries multiply apart. Sums are rounded
  otherwise.

  Args:
    platform: of its devices; elsewhere compilers keep their defaults.
  """
  return {'xla_backend_optimization_level': 0} if platform == 'cpu' else None


def _is_cpu_alone() -> bool:
  """Whether JAX will find CPUs only; does not look for devices.

  The optimization level is one of accelerators, too.
  """
  config: Any = jax.config
  chosen = config.jax_platforms
  if chosen:
    return chosen == 'cpu'
  modules = ('libtpu', 'jax_plugins')
  if any(importlib.util.find_spec(name) for name in modules):
    return False
  return not importlib.metadata.entry_points(group='jax_plugins')
