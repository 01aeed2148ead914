"""Runs of a sweep that were never run."""

import json

from dppo_jax.analysis.jobs import job as job_lib
from dppo_jax.analysis.jobs.job import Outcome
from dppo_jax.analysis.sweeps.plan import Sweep
from dppo_jax.analysis.sweeps.variants import expand
from dppo_jax.configs import default, presets, tiny
from dppo_jax.runtime.reporting import summary
from dppo_jax.runtime.storage import metrics_log, workdir

DELTAS = (
  'trust_region.divergence=binary_tv,binary_kl',
  'trust_region.delta=.1,.2',
)


def sweep(*grids, num_seeds=2, zips=(), code='0' * 16, **changes):
  """A sweep of configs/tiny.py; changes by path with '__' for its dots."""
  config = tiny.get_config()
  flat = {path.replace('__', '.'): v for path, v in changes.items()}
  config.update_from_flattened_dict(flat)
  plain = config.to_dict()
  return Sweep(
    config=plain,
    arguments=['--config=configs/tiny.py'],
    variants=expand(plain, grids, zips, presets.PRESETS),
    num_seeds=num_seeds,
    code=code,
  )


def defaults():
  return default.get_config()


def run(folder, rewards, masked=0.0, held_out=0.5, **facts):
  """The folder of a run with these rewards, a step each."""
  folder.mkdir(parents=True, exist_ok=True)
  rows = [
    {
      'step': step,
      'rewards/mean': reward,
      'trust_region/fraction_masked': masked,
      'trust_region/mean_dropped_weight': masked,
      'mismatch/mean_abs': 0.01,
    }
    for step, reward in enumerate(rewards, 1)
  ]
  rows.append({'step': len(rows), 'evaluation/sampled_accuracy': held_out})
  lines = [json.dumps(row) + '\n' for row in rows]
  (folder / metrics_log.METRICS_FILE).write_text(''.join(lines))
  (folder / workdir.CONFIG).write_text(json.dumps(facts))
  return folder


def finish(folder, seconds=1.0):
  """Marks a run as a finished job."""
  facts = {'wall_s': seconds, 'cpu_s': seconds, 'device': 'an abacus'}
  (folder / job_lib.FACTS).write_text(json.dumps(facts))


def finish_by_hand(folder):
  """Marks it as `experiments.train` does."""
  summary.write_summary(folder, {'steps': 3})


def run_jobs(broken=(), rewards=lambda job: [0.1, 0.2, 0.3]):
  """In place of `pool.run_jobs`; jobs of these (name, seed) fail."""

  def start(jobs, root, *, parallel):
    del parallel
    code = job_lib.code_version()
    outcomes = []
    for job in jobs:
      folder = job_lib.folder_of(job, root, code)
      error = ''
      if (job.name, job.seed) in broken:
        error = 'ValueError: <b>broken</b>'
      else:
        run(folder, rewards(job))
        finish(folder)
      outcomes.append(Outcome(job=job, folder=folder, error=error))
    return outcomes

  return start
