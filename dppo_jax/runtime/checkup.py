"""What the doctor looks at: facts of a run -> findings, each with its fix.

Every function here is pure, so that each kind of sickness can be shown to it.
"""

from collections.abc import Sequence
import dataclasses
from typing import Literal

import numpy as np

from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.rewards.extraction import parse_extraction
from dppo_jax.rewards.pool import parse_verifier
from dppo_jax.rewards.references import Unverifiable
from dppo_jax.runtime import reference_check
from dppo_jax.runtime.config import Experiment
from dppo_jax.runtime.data_problems import TASK
from dppo_jax.runtime.planning import show_bytes

OK, WARNING, ERROR = 'ok', 'warning', 'error'

# Mean |difference| of log-probs, nats, that arithmetic explains: measured
# below 1e-6 where everything is float32, and about 1e-2 in bfloat16.
_EXACT, _ROUNDED = 1e-3, 0.1
# Relative error of a product of 512 summands in f32: measured at 1e-7 to 4e-7.
_F32_PRODUCT = 5e-6
_MOST_TRUNCATED = 0.5
_MOST_EQUAL = 0.8  # Of the groups.
_LEAST_MASS = 0.9  # Of the K recorded tokens.
_FULL = 0.9  # Of the device's memory.
# Running prompts several times matters where they are this long.
_LONG_PROMPT = 0.25


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing looked at.

  Attributes:
    level: whether a run should be started: 'error' says no.
    check: what was looked at.
    cause: what was found.
    fix: what to change; '' where all is well.
  """

  level: Literal['ok', 'warning', 'error']
  check: str
  cause: str
  fix: str = ''

  def __str__(self) -> str:
    mark = {OK: 'ok     ', WARNING: 'WARNING', ERROR: 'ERROR  '}[self.level]
    lines = f'{mark} {self.check}: {self.cause}'
    return f'{lines}\n        Fix: {self.fix}' if self.fix else lines


def check_round_trip(shown: str, spelled: str) -> Finding:
  """Whether a prompt survives its tokens.

  Args:
    shown: the text before it was encoded.
    spelled: the text of its tokens.
  """
  check = 'chat template round trip'
  if spelled == shown or spelled.endswith(shown):  # A token before the text.
    return Finding(OK, check, f'{len(shown):,} characters come back')
  at = next(
    (i for i, (a, b) in enumerate(zip(shown, spelled, strict=False)) if a != b),
    min(len(shown), len(spelled)),
  )
  return Finding(
    ERROR,
    check,
    f'character {at} of the prompt comes back as'
    f' {spelled[at : at + 20]!r}, not {shown[at : at + 20]!r}',
    'use tokenizer.json and chat template of one release; the policy would be'
    ' shown other words than it was trained on.',
  )


def check_published(notes: Sequence[str]) -> list[Finding]:
  """What the files of a published model say and nothing here reads.

  Args:
    notes: of `published_notes.notes`.
  """
  return [
    Finding(
      WARNING,
      'published files',
      note,
      'see whether the model needs it; if not, remove the key.',
    )
    for note in notes
  ]


def check_generation_prompt(opened: str, closed: str) -> Finding:
  """Whether a chat ends where the assistant begins to speak.

  Args:
    opened: the chat as it is sampled from.
    closed: the same chat without the assistant's turn.
  """
  check = 'generation prompt'
  if opened != closed and opened.startswith(closed.rstrip()):
    added = opened[len(closed.rstrip()) :].strip()
    return Finding(OK, check, f'the chat ends with {added!r}')
  return Finding(
    ERROR,
    check,
    "the template does not open the assistant's turn",
    'mend add_generation_prompt in the chat template, or set'
    ' data.chat_template=False and spell the turn in data.prompt_template; the'
    " policy would go on writing the user's turn.",
  )


def check_ends(eos_ids: Sequence[int], vocab_size: int) -> Finding:
  """Whether an end can be drawn.

  Args:
    eos_ids: ids that end a completion.
    vocab_size: V of the head.
  """
  check = 'end token'
  outside = [i for i in eos_ids if not 0 <= i < vocab_size]
  if eos_ids and not outside:
    return Finding(OK, check, f'ids {list(eos_ids)} of {vocab_size:,}')
  cause = f'ids {outside} are not among the {vocab_size:,} rows of the head'
  return Finding(
    ERROR,
    check,
    cause if eos_ids else 'no id ends a completion',
    'put the eos_token_id of the model into generation_config.json of'
    ' data.tokenizer; without it every completion runs to its limit.',
  )


def check_turn_end(
  behind: str,
  end: int | None,
  eos_ids: Sequence[int],
  stop_strings: Sequence[str],
) -> Finding:
  """Whether sampling ends where the chat template ends a turn.

  Args:
    behind: what the template writes behind the assistant's words.
    end: the first special token of it; None where there is none.
    eos_ids: ids that end a completion.
    stop_strings: texts that do.
  """
  check = "end of the assistant's turn"
  spelled = behind.strip()
  if end in eos_ids or any(stop in behind for stop in stop_strings):
    return Finding(OK, check, f'{spelled!r} ends a completion')
  if end is None and not spelled:
    return Finding(
      WARNING,
      check,
      "the template does not say what ends the assistant's words",
      'name a text that ends a completion in sampling.stop_strings, or see that'
      ' the model learns to write its end token.',
    )
  which = f'token {end}' if end is not None else 'text'
  return Finding(
    WARNING,
    check,
    f'the template ends a turn with {spelled!r} ({which}), and completions end'
    f' with the ids {list(eos_ids)}',
    f'set sampling.stop_strings=({spelled.splitlines()[0]!r},), or list the'
    ' token in generation_config.json; what goes on past its turn runs to the'
    ' limit.',
  )


def check_special_text(num_special: int, num_prompts: int) -> Finding:
  """Whether problems spell special tokens, which are read as such.

  Args:
    num_special: problems that do.
    num_prompts: all of them.
  """
  check = 'special tokens in problems'
  if not num_special:
    return Finding(OK, check, f'none of {num_prompts:,} spells one')
  return Finding(
    WARNING,
    check,
    f'{num_special:,} of {num_prompts:,} problems spell one, and it is read as'
    ' the token',
    'mend or leave out those rows: such a text can end the turn of the user,'
    ' or open another.',
  )


def check_law(experiment: Experiment) -> list[Finding]:
  """Whether trainer and sampler mean the same distribution."""
  sampled, loss = experiment.sampling, experiment.loss
  found = [Finding(OK, 'temperature', f'{sampled.temperature:g} on both sides')]
  if sampled.temperature != loss.temperature:
    found = [
      Finding(
        ERROR,
        'temperature',
        f'sampled at {sampled.temperature:g}, trained at {loss.temperature:g}',
        'give both sampling.temperature; pi / mu would be wrong everywhere.',
      )
    ]
  if sampled.top_p == 1.0 and not sampled.greedy:
    found.append(Finding(OK, 'top-p', '1 in training'))
  else:
    found.append(
      Finding(
        ERROR,
        'top-p',
        f'training samples with top_p={sampled.top_p:g}'
        f'{", greedily" if sampled.greedy else ""}',
        'sample from the whole softmax, top_p=1; the recorded law would not be'
        ' the one that the trainer compares.',
      )
    )
  return found


def check_extraction(experiment: Experiment) -> Finding:
  """Whether verifiers of answers are shown answers, not whole completions."""
  check, rewards = 'extraction', experiment.rewards
  names = [term.name for term in parse_verifier(rewards.verifier, 1)]
  readers = [name for name in names if name in ('math', 'numeric')]
  made = experiment.data.source == TASK and not experiment.data.mixture
  if not readers or made or parse_extraction(rewards.extraction) != ('whole',):
    return Finding(OK, check, f'{rewards.verifier} of {rewards.extraction}')
  return Finding(
    WARNING,
    check,
    f'{readers[0]} reads the whole completion, and a model writes more than'
    ' its answer: nothing is right then',
    "set rewards.extraction=boxed, or 'boxed, hashes' as the prompts ask.",
  )


def check_references(name: str, found: Unverifiable, limit: float) -> Finding:
  """Whether the reference answers can be met.

  Args:
    name: of the data, 'training' say.
    found: those that cannot.
    limit: share of them that a run lets pass.
  """
  check = f'{name} references'
  if not found.num_examples:
    return Finding(OK, check, f'{found.num_checked:,} right by themselves')
  return Finding(
    ERROR if found.share > limit else WARNING,
    check,
    reference_check.describe(name, found),
    'mend or leave out these rows, name another data.fields.answer, or choose'
    ' the rewards.verifier that reads them'
    + (
      f'; data.max_unverifiable={limit:g} refuses so many.'
      if found.share > limit
      else '.'
    ),
  )


def check_held_out(experiment: Experiment, num_trained_on: int) -> Finding:
  """Whether held-out prompts are held out.

  Args:
    experiment: the run.
    num_trained_on: of them that stand in the training set.
  """
  check, evaluation = 'held-out prompts', experiment.evaluation
  if not num_trained_on:
    return Finding(OK, check, 'none is trained on')
  text = f'{num_trained_on:,} are trained on, letter by letter'
  if evaluation.drop_trained_on:
    return Finding(OK, check, f'{text}, and left out')
  if evaluation.split == 'train':
    return Finding(OK, check, f'{text}, as evaluation.split=train asks')
  return Finding(
    WARNING,
    check,
    text,
    'set evaluation.drop_trained_on=True; accuracy on them is no evidence.',
  )


def check_recorded(experiment: Experiment, mass: float | None) -> Finding:
  """Whether what the divergence reads is recorded.

  Args:
    experiment: the run.
    mass: mean probability of the recorded tokens; None where none were.
  """
  check, name = 'recorded K', experiment.loss.divergence
  wanted = experiment.sampling.top_k
  if DIVERGENCES[name].records == 'top_k' and (not wanted or mass is None):
    return Finding(
      ERROR,
      check,
      f'{name} reads the top-K log-probs and none are recorded',
      f'set sampling.top_k=20, or trust_region.divergence=binary_'
      f'{name.rpartition("_")[2]}.',
    )
  if wanted and mass is None:
    return Finding(
      ERROR,
      check,
      f'sampling.top_k={wanted} and the rollout holds none',
      'set sampling.top_k=0 if nothing reads them.',
    )
  if mass is None:
    return Finding(OK, check, f'0; {name} needs none')
  if DIVERGENCES[name].records == 'top_k' and mass < _LEAST_MASS:
    return Finding(
      WARNING,
      check,
      f'the {wanted} recorded tokens hold {mass:.1%} of the probability, so'
      f' {name} is far below the exact divergence',
      'raise sampling.top_k, or wait: a policy that is trained sharpens.',
    )
  return Finding(OK, check, f'{wanted}, holding {mass:.1%} of the probability')


def check_agreement(
  experiment: Experiment, sampled: np.ndarray, trained: np.ndarray
) -> Finding:
  """Whether the trainer gives tokens the log-probs they were sampled with.

  Args:
    experiment: the run.
    sampled: f32 [n], of completion tokens, as recorded.
    trained: f32 [n], of the same parameters, by the trainer.
  """
  check = 'sampler against trainer'
  if not sampled.size:
    return Finding(ERROR, check, 'no token was sampled', 'see above.')
  precision, dtype = experiment.sampling.precision, experiment.model.dtype
  exact = precision == dtype == 'float32'
  limit = _EXACT if exact else _ROUNDED
  off = float(np.mean(np.abs(sampled - trained)))
  text = (
    f'log-probs differ by {off:.2g} nats in the mean ({sampled.size:,} tokens)'
  )
  if np.isfinite(off) and off <= limit:
    return Finding(OK, check, text)
  return Finding(
    ERROR if exact or not np.isfinite(off) else WARNING,
    check,
    f'{text}; {limit:g} is what {dtype} and a {precision} sampler explain',
    'compare at sampling.precision=float32 and model.dtype=float32: what is'
    ' left there is not rounding but another law (temperature, weights).',
  )


def check_lengths(
  truncated: np.ndarray, limit: int, *, warm_start: bool
) -> Finding:
  """How many completions the limit cuts.

  Args:
    truncated: bool [B].
    limit: R, tokens.
    warm_start: a warm start comes first, and will change this.
  """
  check, share = 'truncation', float(np.mean(truncated))
  text = f'{share:.0%} of {truncated.size} completions reach {limit:,} tokens'
  if share <= _MOST_TRUNCATED:
    return Finding(OK, check, text)
  return Finding(
    ERROR if share == 1 and not warm_start else WARNING,
    check,
    text + (', before the warm start' if warm_start else ''),
    'raise sampling.max_completion_length, or see that the chat template is'
    " the model's and its end token is listed; what is cut earns nothing.",
  )


def check_products(device: str, error: float, dtype: str) -> Finding:
  """Whether a product of f32 arrays is one of f32 on the device at hand.

  Args:
    device: its name.
    error: of such a product against f64, relative, root of the mean square.
    dtype: what the model computes in.
  """
  check = 'float32 products'
  text = f'off by {error:.1g} of f64 on {device}'
  if error <= _F32_PRODUCT:
    more = '' if dtype == 'float32' else f'; the model computes in {dtype}'
    return Finding(OK, check, f'{text}: float32 means float32{more}')
  return Finding(
    ERROR if dtype == 'float32' else WARNING,
    check,
    f'{text}; float32 explains {_F32_PRODUCT:g}, TF32 about 3e-4, bfloat16'
    ' about 2e-3',
    'look for what lowers it (XLA_FLAGS, NVIDIA_TF32_OVERRIDE), or claim of'
    ' results on this device no more than that.',
  )


def check_rewards(rewards: np.ndarray, *, warm_start: bool) -> Finding:
  """How many groups teach nothing.

  Args:
    rewards: f32 [N, G].
    warm_start: as in `check_lengths`.
  """
  check = 'zero-variance groups'
  equal = rewards.max(axis=1) == rewards.min(axis=1)
  share = float(np.mean(equal))
  text = f'{share:.0%} of {equal.size} groups; mean reward {rewards.mean():.3g}'
  if share <= _MOST_EQUAL:
    return Finding(OK, check, text)
  low = rewards.mean() < 0.5
  return Finding(
    ERROR if share == 1 and not warm_start else WARNING,
    check,
    text + (', before the warm start' if warm_start else ''),
    (
      'too hard, or right answers are not read: look at completions and'
      ' rewards.extraction'
      if low
      else 'too easy'
    )
    + '; choose problems with experiments.select_problems, raise'
    ' data.group_size, or set data.dynamic_sampling=resample.',
  )


def check_microbatch(experiment: Experiment) -> Finding:
  """Whether the completions of a group share their prompt in training."""
  check, data = 'microbatch', experiment.data
  shared, size = experiment.loss.shared_rows, data.group_size
  if shared == size:
    return Finding(OK, check, f'whole groups of {size}; a prompt is run once')
  columns = data.max_prompt_length + experiment.sampling.max_completion_length
  long = data.max_prompt_length / columns
  text = f'{shared} of {size} completions share a prompt, {long:.0%} of a row'
  if long < _LONG_PROMPT:
    return Finding(OK, check, text)
  return Finding(
    WARNING,
    check,
    f'{text}; a prompt is run {size // shared} times',
    'choose learner.num_microbatches so that a device has a multiple of'
    f' data.group_size={size} rows, and learner.share_prompts=True.',
  )


def check_memory(estimate: float, capacity: float | None) -> Finding:
  """Whether the estimate of the plan fits a device.

  Args:
    estimate: bytes a device.
    capacity: bytes a device has; None where that is not known.
  """
  check = 'memory'
  if capacity is None:
    return Finding(
      OK, check, f'{show_bytes(estimate)} estimated; device unknown'
    )
  text = f'{show_bytes(estimate)} estimated of {show_bytes(capacity)} a device'
  if estimate <= _FULL * capacity:
    return Finding(OK, check, text)
  return Finding(
    ERROR if estimate > capacity else WARNING,
    check,
    text,
    'raise learner.num_microbatches or mesh.fsdp, set model.remat=full, lower'
    ' data.num_prompts or sampling.max_completion_length; the plan'
    ' (experiments.train --dry_run) says what takes most.',
  )
