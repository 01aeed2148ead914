"""Compares our trust regions with what the authors' own code returned.

python -m experiments.conformance --golden=DIR --json=FILE.json

Exit code 0 where every difference is explained, else 1.
"""

import json
import pathlib

from absl import flags

from dppo_jax.runtime import entry_point
from dppo_jax.runtime.conformance import comparison, golden, verdict

_GOLDEN = flags.DEFINE_string('golden', None, 'Folder of golden .npz files.')
_JSON = flags.DEFINE_string('json', None, 'The report goes there as well.')


def main() -> int:
  """Compares; returns the exit code."""
  named = entry_point.required(
    'golden', _GOLDEN.value, 'the folder of golden .npz files'
  )
  folder = pathlib.Path(named).expanduser().absolute()
  report = comparison.compare(golden.read_folder(folder))
  print(verdict.describe(report))
  if _JSON.value is not None:
    text = json.dumps(verdict.to_json(report), indent=2, allow_nan=False)
    pathlib.Path(_JSON.value).write_text(text + '\n', encoding='utf-8')
    print(f'Report: {_JSON.value}')
  return 0 if report.conforms else 1


if __name__ == '__main__':
  entry_point.run(main)
