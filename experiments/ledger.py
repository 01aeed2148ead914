"""Shows which tokens a run's rule masked, and which other rules would mask.

python -m experiments.ledger --workdir=DIR --step=10,20 --rule=dppo_binary_kl \
  --rule=cppo,w_min=1 --rule=divergence=binary_tv,delta=0.1 --match_share
"""

import pathlib

from absl import flags

from dppo_jax.analysis.ledger import replay, report
from dppo_jax.configs import default, presets
from dppo_jax.runtime import cli
from dppo_jax.runtime.ledger import files
from dppo_jax.runtime.storage import workdir

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_STEP = flags.DEFINE_string('step', 'all', 'Recorded steps: 10,20, or all.')
_RULE = flags.DEFINE_multi_string(
  'rule', [], 'To replay: a preset, keys of trust_region, or both; repeatable.'
)
_MATCH_SHARE = flags.DEFINE_bool(
  'match_share', False, 'Replay with thresholds that mask as many tokens.'
)
_SHOWN = flags.DEFINE_integer('num_shown', 20, 'Tokens listed per rule.')
_OUT = flags.DEFINE_string('out', None, 'Folder for figures; DIR/ledger.')
_HTML = flags.DEFINE_string('html', None, 'HTML page; OUT/ledger.html.')


def main() -> int:
  """Replays, prints and draws; returns the exit code."""
  named = cli.required('workdir', _WORKDIR.value, 'the run to show')
  folder = pathlib.Path(named).expanduser().absolute()
  record = files.load_steps(folder, _STEP.value)
  recorded = workdir.read_config(folder)
  own, *others = (
    replay.resolve(default.get_config(), recorded, presets.PRESETS, text)
    for text in ('', *_RULE.value)
  )
  findings = report.examine(record, own, others, match_share=_MATCH_SHARE.value)
  print(report.describe(findings, folder, _SHOWN.value), end='\n\n')
  out = pathlib.Path(_OUT.value or folder / files.FOLDER).expanduser()
  page = pathlib.Path(_HTML.value or out / 'ledger.html').expanduser()
  print(report.draw(findings, folder, out, page))
  return 0


if __name__ == '__main__':
  cli.run(main)
