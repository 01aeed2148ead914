"""A figure, and runs of it that were never run."""

import json

from dppo_jax.analysis import panels
from dppo_jax.analysis.jobs.job import Outcome
from dppo_jax.configs import presets, tiny
from dppo_jax.experiments.figures.harness.contrasts import contrast
from dppo_jax.experiments.figures.harness.figure import Figure, Tier
from dppo_jax.runtime.storage import metrics_log

FIGURE = Figure(
  name='made_up',
  title='A made-up figure',
  paper='No Fig. 1',
  claim='TV earns more.',
  variants={
    'PG-IS': presets.PRESETS['pg_is'],
    'TV': presets.PRESETS['dppo_binary_tv'],
  },
  tiers={
    'cpu': Tier(config=tiny.get_config, seeds=(10, 11, 12, 13, 14)),
    'smoke': Tier(config=tiny.get_config, seeds=(0,)),
  },
  panels=lambda points: [panels.over_steps(points, 'reward', 'R', 'mean')],
  judge=lambda points: [
    contrast(points, 'TV | earns more.', 'reward', 'TV', 'PG-IS', 0.1)
  ],
  pod=('python -m experiments.train --config=x',),
)
_REWARD = {'PG-IS': 0.2, 'TV': 0.6}


def outcome(job, root):
  """What a run would have left: three steps."""
  folder = root / f'{job.name}-{job.seed}'
  folder.mkdir(parents=True, exist_ok=True)
  rows = [{'step': 0, 'evaluation/sampled_accuracy': 0.25}]
  for step in (1, 2):
    reward = _REWARD[job.name] + 0.01 * job.seed + 0.1 * step
    rows.append({'step': step, 'rewards/mean': reward})
  rows.append({'step': 2, 'evaluation/sampled_accuracy': 0.5})
  lines = [json.dumps(row) + '\n' for row in rows]
  (folder / metrics_log.METRICS_FILE).write_text(''.join(lines))
  return Outcome(
    job=job, folder=folder, error='', wall_s=2.0, cpu_s=1.5, device='an abacus'
  )


def run_jobs(broken=()):
  """In place of `pool.run_jobs`; jobs of these (name, seed) fail."""

  def run(jobs, root, *, parallel):
    del parallel
    return [
      Outcome(job=job, folder=root / 'x', error='ValueError: broken')
      if (job.name, job.seed) in broken
      else outcome(job, root)
      for job in jobs
    ]

  return run
