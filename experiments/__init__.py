"""Entry points, run as `python -m experiments.NAME`."""

import sys

from dppo_jax.commands import garbage, help_text

# This package is imported before the entry point, and so before JAX: here
# --help costs a tenth of what it would cost there.
_TOLD = help_text.of_module(sys.orig_argv)
if _TOLD is not None:
  print(_TOLD)
  sys.exit(0)
garbage.collect_less()  # Imports are a third of what it saves.
