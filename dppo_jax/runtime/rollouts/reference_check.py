"""Reference answers of a run's data, judged before it starts."""

from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.references import Unverifiable, find_unverifiable
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.checks.data import SAME, TASK
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs.parts import Parts

_MAX_SHOWN = 8  # References that are listed.

Found = dict[str, Unverifiable]


def examine(experiment: Experiment, parts: Parts, pool: VerifierPool) -> Found:
  """References of a run's files that no verifier accepts.

  Args:
    experiment: the run.
    parts: its parts.
    pool: its verifiers.

  Returns:
    Of 'training' and 'held-out' data each, unless this package makes them:
    its tasks write what their verifiers read. Nothing where an environment
    judges.
  """
  if experiment.environment.name:
    return {}
  data, held_out = experiment.data, experiment.evaluation.source
  streams: dict[str, PromptStream] = {}
  if data.mixture or data.source != TASK:
    streams['training'] = parts.prompts
  if (data.source if held_out == SAME else held_out) != TASK:
    streams['held-out'] = parts.held_out
  found = {}
  for name, stream in streams.items():
    with activity.under_way(f'verifying the {name} references'):
      found[name] = find_unverifiable(stream.all_examples(), pool)
  return found


def describe(
  name: str, found: Unverifiable, num_shown: int = _MAX_SHOWN
) -> str:
  """'3 of 7,473 training references …', and the first of them."""
  listed = list(found.shown.items())
  texts = [f'{reference!r} ({why})' for reference, why in listed[:num_shown]]
  more = len(listed) - len(texts)
  return (
    f'{found.num_examples:,} of {found.num_checked:,} {name} references are'
    f' accepted by no verifier: {", ".join(texts)}'
    + (f' and {more:,} more' if more > 0 else '')
  )


def check(found: Found, limit: float) -> list[str]:
  """A sentence for each part of the data that has such references.

  Args:
    found: of `examine`.
    limit: share of them that is let pass, data.max_unverifiable.

  Raises:
    ValueError: there are more.
  """
  told = []
  for name, each in found.items():
    if each.share > limit:
      raise ValueError(
        f'data.max_unverifiable: {describe(name, each)}; at most {limit:g} of'
        ' them may be. Nothing a policy writes is right there: mend the'
        ' answers, name another data.fields.answer, choose the'
        ' rewards.verifier that reads them, or raise the limit.'
      )
    if each.num_examples:
      told.append(describe(name, each))
  return told
