"""Run by the kernel of the notebooks at its start, when they are tested."""

import gc

import jax

from tests.support import compilation

jax.config.update('jax_include_full_tracebacks_in_locations', False)
compilation.share_contexts()
gc.set_threshold(20_000, 10, 10)
