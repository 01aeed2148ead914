"""Checks of the doctor on prompts, templates, references and held-out data."""

from collections.abc import Sequence

from dppo_jax.planning.findings import ERROR, OK, WARNING, Finding
from dppo_jax.rewards import library_scores
from dppo_jax.rewards.answers.extraction import parse_extraction
from dppo_jax.rewards.pool import parse_verifier
from dppo_jax.rewards.references import Unverifiable
from dppo_jax.runtime.config.checks.data import TASK
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import published_notes
from dppo_jax.runtime.rollouts import reference_check


def check_round_trip(shown: str, decoded: str) -> Finding:
  """Finding on whether decoding restores a prompt.

  Args:
    shown: text before it was encoded.
    decoded: text of its tokens.
  """
  check = 'chat template round trip'
  if decoded == shown or decoded.endswith(shown):  # A token before the text.
    return Finding(OK, check, f'{len(shown):,} characters are restored')
  at = next(
    (i for i, (a, b) in enumerate(zip(shown, decoded, strict=False)) if a != b),
    min(len(shown), len(decoded)),
  )
  return Finding(
    ERROR,
    check,
    f'character {at} of the prompt is decoded as'
    f' {decoded[at : at + 20]!r}, not {shown[at : at + 20]!r}',
    'use tokenizer.json and chat template of one release; else the policy sees'
    ' other text than it was trained on.',
  )


def check_published(notes: Sequence[str]) -> list[Finding]:
  """Findings on settings in a published model's files that are not supported.

  Args:
    notes: from `published_notes.notes`.
  """
  return [
    Finding(
      WARNING,
      'published files',
      note,
      'check whether the model needs it; if not, remove the key.',
    )
    for note in notes
  ]


def check_generation_prompt(opened: str, closed: str) -> Finding:
  """Finding on whether a chat prompt ends with the open assistant's turn.

  Args:
    opened: the chat from which completions are sampled.
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
    'fix add_generation_prompt in the chat template, or set'
    ' data.chat_template=False and write the turn in data.prompt_template; else'
    " the policy continues the user's turn.",
  )


def check_ends(eos_ids: Sequence[int], vocab_size: int) -> Finding:
  """Finding on whether an end token can be sampled.

  Args:
    eos_ids: ids that end a completion.
    vocab_size: V of the LM head.
  """
  check = 'end token'
  outside = [i for i in eos_ids if not 0 <= i < vocab_size]
  if eos_ids and not outside:
    return Finding(OK, check, f'ids {list(eos_ids)} of {vocab_size:,}')
  cause = f'ids {outside} are outside the {vocab_size:,} rows of the LM head'
  return Finding(
    ERROR,
    check,
    cause if eos_ids else 'no id ends a completion',
    "put the model's eos_token_id into generation_config.json of"
    ' data.tokenizer; without it every completion reaches the length limit.',
  )


def check_turn_end(
  behind: str,
  end: int | None,
  eos_ids: Sequence[int],
  stop_strings: Sequence[str],
) -> Finding:
  """Finding on whether the end of a chat turn ends a completion.

  Args:
    behind: text that the template writes after the assistant's message.
    end: its first special token; None if there is none.
    eos_ids: ids that end a completion.
    stop_strings: texts that end a completion.
  """
  check = "end of the assistant's turn"
  closing = behind.strip()
  if published_notes.ends_turn(behind, end, eos_ids, stop_strings):
    return Finding(OK, check, f'{closing!r} ends a completion')
  if end is None and not closing:
    return Finding(
      WARNING,
      check,
      "the template does not mark the end of the assistant's turn",
      'set a stop string in sampling.stop_strings, or make sure that the model'
      ' learns to write its end token.',
    )
  which = f'token {end}' if end is not None else 'text'
  return Finding(
    WARNING,
    check,
    f'the template ends a turn with {closing!r} ({which}), and completions end'
    f' with the ids {list(eos_ids)}',
    f'set sampling.stop_strings=({closing.splitlines()[0]!r},), or list the'
    ' token in generation_config.json; else completions continue to the length'
    ' limit.',
  )


def check_special_text(num_special: int, num_prompts: int) -> Finding:
  """Finding on special-token strings in problems, encoded as special tokens.

  Args:
    num_special: problems with such strings.
    num_prompts: all problems.
  """
  check = 'special tokens in problems'
  if not num_special:
    return Finding(OK, check, f'none in {num_prompts:,}')
  return Finding(
    WARNING,
    check,
    f'{num_special:,} of {num_prompts:,} problems contain one, and it is'
    ' encoded as the token',
    "fix or remove those rows: such text can end the user's turn, or open"
    ' another.',
  )


def check_extraction(experiment: Experiment) -> Finding:
  """Finding on whether answer verifiers read answers, not full completions."""
  check, rewards = 'extraction', experiment.rewards
  names = [term.name for term in parse_verifier(rewards.verifier, 1)]
  readers = [name for name in names if name in ('math', 'numeric')]
  if experiment.data.chat_template:
    # A chat answers in sentences; a plain prompt may end where a number goes.
    readers += [name for name in names if name in library_scores.NAMES]
  made = experiment.data.source == TASK and not experiment.data.mixture
  if not readers or made or parse_extraction(rewards.extraction) != ('whole',):
    return Finding(OK, check, f'{rewards.verifier} of {rewards.extraction}')
  return Finding(
    WARNING,
    check,
    f'{readers[0]} reads the full completion, and a model writes more than'
    ' its answer: then nothing is right',
    "set rewards.extraction=boxed, or 'boxed, hashes', 'answer_tag' as the"
    ' prompts ask.',
  )


def check_references(name: str, found: Unverifiable, limit: float) -> Finding:
  """Finding on reference answers that no verifier accepts.

  Args:
    name: of the data, such as 'training'.
    found: the rejected references.
    limit: share of them that a run allows.
  """
  check = f'{name} references'
  if not found.num_examples:
    return Finding(OK, check, f'{found.num_checked:,} accepted')
  return Finding(
    ERROR if found.share > limit else WARNING,
    check,
    reference_check.describe(name, found),
    'fix or remove these rows, set another data.fields.answer, or choose a'
    ' rewards.verifier that reads them'
    + (
      f'; data.max_unverifiable={limit:g} does not allow so many.'
      if found.share > limit
      else '.'
    ),
  )


def check_held_out(experiment: Experiment, num_trained_on: int) -> Finding:
  """Finding on held-out prompts that are in the training set.

  Args:
    experiment: the run.
    num_trained_on: number of such prompts.
  """
  check, evaluation = 'held-out prompts', experiment.evaluation
  if not num_trained_on:
    return Finding(OK, check, 'none is in the training set')
  text = f'{num_trained_on:,} are in the training set (exact match)'
  if evaluation.drop_trained_on:
    return Finding(OK, check, f'{text}, and dropped')
  if evaluation.split == 'train':
    return Finding(OK, check, f'{text}, since evaluation.split=train')
  return Finding(
    WARNING,
    check,
    text,
    'set evaluation.drop_trained_on=True; accuracy on them is no evidence.',
  )
