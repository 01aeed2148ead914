"""Cheaper compiling, for the thousands of small programs of the tests."""

import os
import threading

import jax
from jax._src import lru_cache
from jax._src.interpreters import mlir

# A context keeps every constant of the programs that it served.
_PROGRAMS_A_CONTEXT = 100


def keep_programs(folder):
  """Compiles the same program once, in all workers and in their children."""
  write_whole_files()
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def write_whole_files():
  """Has the cache show others whole files only, whenever a process is killed.

  JAX writes them in place: another process that reads at that moment warns, and
  what a killed process left is never replaced.
  """

  def put(cache, key, value):
    path = cache.path / f'{key}{lru_cache._CACHE_SUFFIX}'
    if not path.exists():
      part = path.with_name(
        f'{path.name}.{os.getpid()}.{threading.get_ident()}'
      )
      part.write_bytes(value)
      part.replace(path)

  lru_cache.LRUCache.put = put


def write_small_arrays_whole():
  """Has one replica of a small array write it, not each a part.

  Orbax cuts the parts on their devices: a program for every part of every
  shape, and arrays of eight devices are small here. What two processes write of
  one array is tested by processes of their own.
  """
  import orbax.checkpoint as ocp  # Not in processes that write none.

  handler = ocp.type_handlers.get_type_handler(jax.Array)
  handler._min_slice_bytes_for_replica_parallel = 2**20


def share_contexts():
  """Lowers a hundred programs in one MLIR context, not each in its own.

  Loading the dialects into a context takes longer than lowering a program of a
  few operations. Programs do not see each other in a context; each thread has
  its own.
  """
  make, held = mlir.make_ir_context, threading.local()

  def shared():
    if getattr(held, 'left', 0) == 0:
      held.context, held.left = make(), _PROGRAMS_A_CONTEXT
    held.left -= 1
    return held.context

  mlir.make_ir_context = shared
