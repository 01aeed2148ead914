"""The file of an evaluation: one line of JSON a problem, in the workdir."""

import hashlib
import json
import pathlib
import re
from typing import Any

import numpy as np

from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.runtime.config.checks.data import SAME
from dppo_jax.runtime.config.experiment import EvaluationConfig
from dppo_jax.runtime.evaluation.evaluate import Answers, Evaluation
from dppo_jax.runtime.storage.files import write_atomically

FOLDER = 'evaluations'
_KEPT = 20_000  # Characters of a completion that is kept, both its ends.


def results_path(
  workdir: pathlib.Path, step: int, config: EvaluationConfig, num_problems: int
) -> pathlib.Path:
  """Where the results of an evaluation stand: a name for each way to do it.

  Another source than the run's own, and a file of the user's, are in the name.

  Args:
    workdir: of the run.
    step: of the policy.
    config: how it is evaluated.
    num_problems: n.
  """
  how = config.sampled
  what = config.split
  if config.files:
    digest = hashlib.sha256(config.files.encode()).hexdigest()[:8]
    what = f'{pathlib.PurePath(config.files).stem}_{digest}_{what}'
  if config.source != SAME:
    what = f'{config.source}_{what}'
  what = re.sub(r'[^A-Za-z0-9._-]+', '_', what)
  name = (
    f'step{step}_{what}_{num_problems}x{config.num_samples}'
    f'_temperature{how.temperature:g}_top_p{how.top_p:g}.jsonl'
  )
  return workdir / FOLDER / name


def problem_rows(
  stream: PromptStream, found: Evaluation
) -> list[dict[str, Any]]:
  """The outcome of each problem, as JSON can hold it.

  Returns:
    n rows: 'example_id', 'prompt' where its example has one, 'num_samples',
    'correct', samples with a reward above 0, 'reward', their mean, and
    'reasons', how often each was given; of a problem with a wrong sample also
    'failure', the first of them: 'completion', 'reason', 'length' in tokens
    and 'truncated'.
  """
  rewards = found.sampled.rewards()
  size = rewards.shape[1]
  rows = []
  for row, example in enumerate(stream.examples(found.sampled.example_id)):
    verdicts = found.sampled.verdicts[row * size : (row + 1) * size]
    reasons = [verdict.reason for verdict in verdicts]
    failed = np.flatnonzero(rewards[row] <= 0)
    rows.append(
      {
        'example_id': int(found.sampled.example_id[row]),
        **({'prompt': str(example['prompt'])} if 'prompt' in example else {}),
        'num_samples': size,
        'correct': int(np.sum(rewards[row] > 0)),
        'reward': float(np.mean(rewards[row])),
        'reasons': {r: reasons.count(r) for r in sorted(set(reasons))},
        **(
          {'failure': _failure(found.sampled, row * size + int(failed[0]))}
          if failed.size
          else {}
        ),
      }
    )
  return rows


def _failure(answers: Answers, row: int) -> dict[str, Any]:
  """A completion, and why it is wrong."""
  text = answers.texts[row]
  if len(text) > _KEPT:
    half = _KEPT // 2
    left_out = len(text) - 2 * half
    text = f'{text[:half]} [{left_out:,} characters] {text[-half:]}'
  return {
    'completion': text,
    'reason': answers.verdicts[row].reason,
    'length': int(answers.lengths[row]),
    'truncated': bool(answers.truncated[row]),
  }


def write_results(
  workdir: pathlib.Path,
  step: int,
  config: EvaluationConfig,
  stream: PromptStream,
  found: Evaluation,
) -> pathlib.Path:
  """Writes the rows; the same evaluation of a resumed run replaces them.

  Args:
    workdir: of the run.
    step: of the policy.
    config: how it was evaluated.
    stream: where the problems came from.
    found: of the evaluation.

  Returns:
    The file.

  Raises:
    OSError: it cannot be written.
  """
  rows = problem_rows(stream, found)
  path = results_path(workdir, step, config, len(rows))
  path.parent.mkdir(exist_ok=True)
  lines = [json.dumps(row, allow_nan=False) + '\n' for row in rows]
  write_atomically(path, ''.join(lines))
  return path
