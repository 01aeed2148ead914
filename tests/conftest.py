"""Makes every test the same everywhere: CPU, eight devices, strict shapes.

Most of a run of the tests is compiling small programs, so XLA optimizes as
little as it can, which changes roundings and no rule. `make test-thorough` sets
`DPPO_JAX_TESTS=thorough`: programs are compiled as a user's are, and property
tests draw twenty times as many examples.
"""

import collections
import gc
import importlib.metadata
import os
import pathlib
import signal
import threading

# All of this must stand before the first import of jax.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = ' '.join(
  (
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    *(
      ()
      if os.environ.get('DPPO_JAX_TESTS') == 'thorough'
      else (  # A quarter of the time to compile.
        '--xla_backend_optimization_level=0',
        '--xla_llvm_disable_expensive_passes=true',
        # XLA ends the process at an unknown flag, as this is to JAX 0.12.
        *(
          ['--xla_cpu_use_fusion_emitters=false']
          if importlib.metadata.version('jax').startswith('0.10.')
          else []
        ),
        '--xla_cpu_parallel_codegen_split_count=1',
      )
    ),
  )
).strip()

import jax
import pytest

from tests.support import compilation, examples, slow

_CACHE = pathlib.Path(
  os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
)

jax.config.update('jax_numpy_rank_promotion', 'raise')
# Nothing reads where in the code an operation of a program comes from.
jax.config.update('jax_include_full_tracebacks_in_locations', False)
compilation.keep_programs(f'{_CACHE}/dppo_jax/xla_tests')
compilation.share_contexts()
# Tracing allocates much and frees it in order: the collector finds little.
gc.set_threshold(20_000, 10, 10)

examples.load_profile()

# A shell without job control starts `make test &` with Ctrl-C ignored, and so
# would be all processes of the tests, some of which are ended by it.
if (
  threading.current_thread() is threading.main_thread()
  and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
  signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
  """Marks the slow tests; files with most of them first, as one runs in one.

  A slow file that is last would keep one worker alone.
  """
  listed, of_file = slow.read(), collections.Counter()
  for test, seconds in listed.items():
    of_file[test.partition('::')[0]] += seconds
  for item in items:
    if slow.function(item.nodeid) in listed:
      item.add_marker(pytest.mark.slow)
  items.sort(key=lambda item: -of_file[item.nodeid.partition('::')[0]])


def pytest_collection_finish():
  """What was imported and collected lives on: no collection looks there."""
  gc.freeze()
