"""README.md of a figure: verdicts, and how it was made."""

from collections.abc import Mapping, Sequence
import math
import subprocess
from typing import Any

from dppo_jax.analysis import panels
from dppo_jax.experiments.figures.harness import verdicts
from dppo_jax.experiments.figures.harness.figure import TUNING_SEEDS, Figure
from dppo_jax.experiments.figures.harness.verdicts import ClaimVerdict
from dppo_jax.runtime.activity import format_seconds
from dppo_jax.runtime.storage import code_version

# The trial of all methods has two hundred, which differ by a pattern.
_MOST_VARIANTS = 40


def figures_version() -> str:
  """Hash of the code that runs, collects and judges: 16 hexadecimal digits."""
  return code_version.of_sources(code_version.ROOT)


def commit() -> str:
  """Commit of the sources, followed by '+ changes' if there are any."""

  def git(*arguments: str) -> str:
    done = subprocess.run(
      ['git', '-C', str(code_version.ROOT), *arguments],
      capture_output=True,
      text=True,
      check=False,
      timeout=30,
    )
    return done.stdout.strip() if done.returncode == 0 else ''

  try:
    found = git('rev-parse', '--short=12', 'HEAD')
    sources = ('dppo_jax', 'configs', 'experiments/*.py')
    changed = git('status', '--porcelain', '--', *sources)
  except (OSError, subprocess.TimeoutExpired):
    return 'unknown'
  return (found or 'unknown') + (' + changes' if changed else '')


def about(facts: Mapping[str, Any]) -> str:
  """One line with tier, seeds and device."""
  num_seeds = len(facts['seeds'])
  seeds = f'{num_seeds} seed{"" if num_seeds == 1 else "s"}'
  if not num_seeds:
    seeds = 'no training'
  return f'tier {facts["tier"]} · {seeds} · {" and ".join(facts["devices"])}'


def pod_lines(figure: Figure) -> str:
  """Text printed by the tier 'pod': the paper's own setting."""
  if not figure.pod:
    return f'{figure.name}, {figure.paper}: the paper reports no run of this.'
  lines = [f'{figure.name}, {figure.paper}, in the setting of the paper:']
  lines += ['not yet run.']
  lines += ['It needs the hardware of the paper. Its runs:', *figure.pod]
  return '\n'.join(lines)


def verdict_lines(figure: Figure, findings: Sequence[ClaimVerdict]) -> str:
  """Text printed for the verdicts."""
  lines = [
    f'  {one.verdict} (n = {one.num_seeds}, p = {_p(one.p)}): {one.claim}\n'
    f'    {one.seen}'
    for one in findings
  ]
  return '\n'.join([f'{figure.name}: {figure.title}', *lines])


def write(
  figure: Figure,
  docs: str | None,
  facts: Mapping[str, Any],
  findings: Sequence[ClaimVerdict],
) -> str:
  """Text of README.md.

  Args:
    figure: of this README.
    docs: docstring of its module.
    facts: from facts.json.
    findings: of its judge.
  """
  table = ['| claim | verdict | n | p | seen | rule |', f'|{"---|" * 6}']
  table += [
    f'| {_cell(one.claim)} | **{one.verdict}** | {one.num_seeds} |'
    f' {_p(one.p)} | {_cell(one.seen)} | {_cell(one.rule)} |'
    for one in findings
  ]
  seeds = ', '.join(map(str, facts['seeds'])) or 'none: nothing is trained'
  if set(facts['seeds']) & set(TUNING_SEEDS):
    seeds += '; settings were tuned with them, so these are no verdicts'
  made = [
    f'- Command: `python -m experiments.figures.{figure.name}'
    f' --tier={facts["tier"]} --out=DIR`',
    f'- Commit: {facts["commit"]} (sources {facts["code"]})',
    f'- Seeds: {seeds}',
    f'- Runs: {facts["num_runs"]}, {len(facts["failed"])} failed',
    f'- Device: {" and ".join(facts["devices"])}',
    f'- Duration: runs {format_seconds(facts["runs_wall_s"])}, CPU time'
    f' {format_seconds(facts["runs_cpu_s"])}; the command itself, reusing'
    f' earlier runs, {format_seconds(facts["command_wall_s"])}',
    f'- Points: [{figure.name}.csv]({figure.name}.csv);'
    f' [{figure.name}.svg]({figure.name}.svg) is drawn from them alone',
  ]
  made += [f'- Failed: {failure}' for failure in facts['failed']]
  parts = [
    f'# {figure.title}',
    f'{figure.paper}: {figure.claim}',
    f'![{figure.title}]({figure.name}.png)',
    f'{panels.BANDS}; they are not confidence intervals.',
    '\n'.join(table),
    (docs or '').strip(),
    'Definitions of the verdicts:',
    f'```\n{_after_title(verdicts.__doc__ or "")}\n```',
    '## How it was made',
    '\n'.join(made),
  ]
  if figure.variants:
    parts += ['## Variants', _variants(figure)]
  parts.append('## In the setting of the paper')
  parts.append('Not yet run.')
  if figure.pod:
    parts.append('\n'.join(['```', *figure.pod, '```']))
  return '\n\n'.join(parts) + '\n'


def _variants(figure: Figure) -> str:
  """Shared settings of the variants, and a table of each one's own."""
  every = [dict(overrides) for overrides in figure.variants.values()]
  shared = {
    key: value
    for key, value in every[0].items()
    if all(key in one and one[key] == value for one in every)
  }
  table = ['| variant | settings |', '|---|---|']
  for name, overrides in list(figure.variants.items())[:_MOST_VARIANTS]:
    own = {k: v for k, v in overrides.items() if k not in shared}
    table.append(f'| {_cell(name)} | {_cell(_settings(own))} |')
  parts = [f'All: {_settings(shared)}.', '\n'.join(table)]
  if more := max(0, len(every) - _MOST_VARIANTS):
    where = f'experiments/figures/{figure.name}.py'
    parts.append(f'And {more} more: `FIGURE.variants` of `{where}`.')
  return '\n\n'.join(parts)


def _settings(overrides: Mapping[str, Any]) -> str:
  return ', '.join(f'`{k}={v}`' for k, v in overrides.items()) or 'nothing'


def _p(p: float) -> str:
  return f'{p:.2g}' if math.isfinite(p) else '–'


def _after_title(docs: str) -> str:
  return docs.partition('\n')[2].strip()


def _cell(text: str) -> str:
  return text.replace('|', '\\|').replace('\n', ' ')
