"""The configs of the package that can be run."""

import pathlib

from dppo_jax.configs import published

_NO_RECIPES = {'__init__', 'default', 'presets', 'published', 'thresholds'}
RECIPES = sorted(
  {path.stem for path in pathlib.Path(published.__file__).parent.glob('*.py')}
  - _NO_RECIPES
)
