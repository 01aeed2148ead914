"""Compares this implementation with reference implementations.

python -m experiments.conformance --golden=DIR --json=FILE.json
python -m experiments.conformance --pretrained=DIR

--golden: trust regions, against outputs of the papers' authors' code, or those
of their successors, see `dppo_jax/conformance/successor_files.py`.
--pretrained: published models below DIR, against their expected.npz.
Exit code 0 if every difference is explained or within tolerance, else 1.
"""

import json
import pathlib

from absl import flags

from dppo_jax.conformance import (
  comparison,
  golden,
  hf_models,
  successor_files,
  successors,
  verdict,
)
from dppo_jax.runtime import cli

_GOLDEN = flags.DEFINE_string('golden', None, 'Folder of golden .npz files.')
_PRETRAINED = flags.DEFINE_string('pretrained', None, 'Folder of models.')
_JSON = flags.DEFINE_string('json', None, 'File for the report of --golden.')


def main() -> int:
  """Compares; returns the exit code."""
  if _PRETRAINED.value is not None:
    root = pathlib.Path(_PRETRAINED.value).expanduser().absolute()
    found = hf_models.compare_folder(root)
    print(hf_models.describe(root, found))
    return 0 if all(each.conforms for each in found) else 1
  named = cli.required('golden', _GOLDEN.value, 'the folder of golden files')
  folder = pathlib.Path(named).expanduser().absolute()
  newer, older = successor_files.split_folder(folder)
  found = {'conforms': True}
  if newer:
    checks = [each for path in newer for each in successors.compare_file(path)]
    print(successors.describe(checks))
    found |= successors.to_json(checks)
  if older or not newer:
    report = comparison.compare(golden.read_files(folder, older))
    print(verdict.describe(report))
    both = found['conforms'] and report.conforms
    found |= verdict.to_json(report) | {'conforms': both}
  if _JSON.value is not None:
    text = json.dumps(found, indent=2, allow_nan=False)
    pathlib.Path(_JSON.value).write_text(text + '\n', encoding='utf-8')
    print(f'Report: {_JSON.value}')
  return 0 if found['conforms'] else 1


if __name__ == '__main__':
  cli.run(main)
