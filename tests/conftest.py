"""Makes every test the same everywhere: CPU, eight devices, strict shapes."""

import os
import pathlib

# All of this must stand before the first import of jax.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = ' '.join(
  (
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
  )
).strip()

import jax

_CACHE = pathlib.Path(
  os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
)

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_compilation_cache_dir', f'{_CACHE}/dppo_jax/xla_tests')
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
