"""Shows what training changed: held-out accuracy before and after, samples.

python -m experiments.before_after runs/demo --out=runs/demo/before_after
"""

import json
import pathlib

from absl import flags

from dppo_jax.analysis import before_after
from dppo_jax.runtime import cli
from dppo_jax.runtime.storage import files

_OUT = flags.DEFINE_string(
  'out', None, 'Path without suffix for .png, .svg and .json.'
)
_SHOWN = flags.DEFINE_integer('num_shown', 4, 'Completions of either step.')


def main(*folders: str) -> int:
  """Prints and draws; returns the exit code."""
  cli.required('folders', folders or None, 'finished runs, one a seed')
  runs = [pathlib.Path(folder).expanduser() for folder in folders]
  print(before_after.describe(runs, _SHOWN.value))
  if _OUT.value is not None:
    out = pathlib.Path(_OUT.value).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    before_after.draw(runs, out)
    found = json.dumps(before_after.summarize(runs), indent=2)
    files.write_atomically(out.with_name(f'{out.name}.json'), found + '\n')
    print(f'{out}.png, .svg, .json')
  return 0


if __name__ == '__main__':
  cli.run(main, positional=True)
