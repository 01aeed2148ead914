"""What a run may add, over two real processes: as one process does it.

One job with as many options at once as go together; a job takes long to start.
A signal to one of the two ends it.
"""

import pathlib
import signal

import numpy as np
import pytest

from dppo_jax.runtime.ledger import files
from dppo_jax.runtime.storage import metrics_log
from tests.support import pairs, runs

# Real processes: a rare race is shown as a rerun.
pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=1)]

_DATA = pathlib.Path(__file__).parents[1] / 'testdata'
_SETTINGS = {
  **runs.SMALLEST,
  'num_steps': 50,
  'mesh.fsdp': 2,
  'evaluation.every_n_steps': 0,
  'checkpoints.every_n_steps': 50,
  'writers.samples_every_n_steps': 1,
  'writers.num_samples': 8,  # Every completion.
  'ledger.every_n_steps': 1,
  # A published model with experts, whose routes are replayed; an adapter on
  # it; the trainer's own anchor, and a reference.
  'model.pretrained': _DATA / 'hf_models' / 'qwen3_moe',
  'lora.rank': 2,
  'lora.targets': "('query','value')",
  'learner.router_replay': True,
  'trust_region.anchor': 'recomputed',
  'objective.kl_coefficient': 0.1,
  'sampling.num_slots': 4,  # Of 8.
  'sampling.support_top_k': 8,
  'sampling.support_min_p': 0.2,
  'sampling.integrity_every_n_steps': 1,
  # Ends within a token; lengths tell some groups apart, others are sampled
  # again; a model's score is known and adds nothing.
  'sampling.stop_strings': "('3','7')",
  'data.dynamic_sampling': 'resample',
  'data.max_resampling': 2,
  'rewards.shaping': 'brief',
  'rewards.model': _DATA / 'hf_reward_models' / 'llama3',
  'rewards.model_batch_size': 4,
  'rewards.model_weight': 0,
}
_SHOWN = (
  'rollout/batches',
  'rewards/model_std',
  'router/entropy',
  'integrity/digest',
)


def _stop(processes, folder, step):
  """What the processes say of their end, by a signal once a step is done."""
  runs.wait(lambda: runs.last_step(folder) >= step, *processes)
  processes[-1].send_signal(signal.SIGTERM)
  ended = pairs.end(processes)
  assert [each.code for each in ended] == [143] * len(processes), ended
  return [each.err.rpartition('Stopped after ')[2] for each in ended]


def test_a_signal_stops_two_and_both_did_as_one_does(tmp_path):
  folders = tmp_path / 'one', tmp_path / 'two'
  first, second = _stop(pairs.two(folders[1], _SETTINGS), folders[1], 1)
  step = int(first.split()[1])
  assert first.startswith(f'step {step} of 50')
  assert second.startswith(f'step {step} of 50')
  _stop([pairs.one(folders[0], _SETTINGS)], folders[0], step)

  found = [
    [row for row in runs.rows(folder) if row['step'] <= step]
    for folder in folders
  ]
  assert [row.keys() for row in found[0]] == [row.keys() for row in found[1]]
  trained = [row for row in found[0] if 'loss/total' in row]
  for name in _SHOWN:  # The option did something.
    assert all(row[name] > 0 for row in trained), name
  assert max(row['rollout/batches'] for row in trained) > 1
  assert max(abs(row['loss/total']) for row in trained) > 0
  for mine, theirs in zip(*found, strict=True):
    for key, value in mine.items():
      if key == 'integrity/digest':  # Of bits, which rounding changes.
        continue
      np.testing.assert_allclose(
        float(theirs[key]), float(value), rtol=1e-3, atol=1e-4, err_msg=key
      )
  samples = [
    (folder / metrics_log.SAMPLES_FILE).read_text().splitlines()
    for folder in folders
  ]
  assert samples[0][: step * 8] == samples[1]
  steps = ','.join(map(str, range(1, step + 1)))
  one, two = (files.load_steps(folder, steps) for folder in folders)
  assert one.token.size > step * 8
  for name in ('step', 'token', 'row', 'keep', 'reward', 'divergence'):
    np.testing.assert_allclose(
      getattr(one, name), getattr(two, name), atol=1e-4, err_msg=name
    )
