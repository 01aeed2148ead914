"""What the doctor finds in prompts, templates, references and held-out data."""

from collections.abc import Sequence

from dppo_jax.planning.findings import ERROR, OK, WARNING, Finding
from dppo_jax.rewards.answers.extraction import parse_extraction
from dppo_jax.rewards.pool import parse_verifier
from dppo_jax.rewards.references import Unverifiable
from dppo_jax.runtime.config.checks.data import TASK
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.rollouts import reference_check


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
