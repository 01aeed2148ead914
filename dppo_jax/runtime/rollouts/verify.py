"""Verdicts on decoded completions, by the verifiers of the run."""

import dataclasses

import jax
import numpy as np

from dppo_jax.base import Rollout, Tokenizer
from dppo_jax.data.prompt_stream import PromptStream
from dppo_jax.rewards.environments.pool import EnvironmentPool
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime import activity
from dppo_jax.runtime.config.experiment import VerificationConfig
from dppo_jax.runtime.hosts import host_rows
from dppo_jax.runtime.rollouts import conversations
from dppo_jax.runtime.rollouts import stop_strings as stop_strings_lib


def open_pool(
  config: VerificationConfig, environment: str = ''
) -> VerifierPool:
  """The verifiers or the environment of a run, to be closed by its caller.

  Args:
    config: `experiment.rewards`.
    environment: `experiment.environment.name`; '' opens the verifiers.
  """
  names = [field.name for field in dataclasses.fields(VerificationConfig)]
  settings = {name: getattr(config, name) for name in names}
  if environment:
    settings['verifier'] = environment
    with activity.under_way('starting the environment'):
      return EnvironmentPool(**settings)
  with activity.under_way('starting the verifiers'):
    return VerifierPool(**settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletionVerifier:
  """Texts and verdicts of the completions of one stream's prompts.

  Attributes:
    tokenizer: of the policy.
    stream: where the prompts came from.
    pool: the verifiers.
    prompt_length: P.
    stop_strings: a text ends with the first of them.
    truncated: a key of `TRUNCATED_POLICIES`. Of a completion that the length
      limit ended a verifier is told so only where it is 'zero'.
  """

  tokenizer: Tokenizer
  stream: PromptStream
  pool: VerifierPool
  prompt_length: int
  stop_strings: tuple[str, ...] = ()
  truncated: str = 'zero'

  def verify(
    self,
    rollout: Rollout,
    own: np.ndarray | None = None,
    num_texts: int = 0,
  ) -> tuple[list[str], list[list[Verdict]]]:
    """B texts, and for each term of the reward B verdicts.

    Of conversations the texts hold what the policy was told, too, and the
    verdicts are the environment's. Given `own`, a collective: every process
    decodes and verifies its own rows, and verdicts are shared.

    Args:
      rollout: on the host, B rows.
      own: rows to verify here, of `host_rows.own_rows`; None for all.
      num_texts: completions of other processes to return, from the first row
        on; the rest of theirs are ''.
    """
    if own is not None:
      return self._verify_shared(rollout, own, num_texts)
    talk = rollout.conversation
    mask = rollout.completion_mask if talk is None else rollout.token_mask
    decoded = self.tokenizer.decode_batch(
      rollout.tokens[:, self.prompt_length :], mask[:, self.prompt_length :]
    )
    # Half a surrogate pair has no UTF-8, and texts are written to files.
    texts = [
      text.encode('utf-8', 'replace').decode('utf-8') for text in decoded
    ]
    if talk is not None:
      return texts, [conversations.read_verdicts(talk)]
    if self.stop_strings:
      texts = [stop_strings_lib.trim(t, self.stop_strings) for t in texts]
    examples = self.stream.examples(rollout.example_id)
    flags = np.asarray(rollout.truncated)
    if self.truncated != 'zero':
      flags = np.zeros_like(flags)
    with activity.under_way(f'verifying {len(texts):,} completions'):
      return texts, self.pool.verify_terms(texts, examples, flags)

  def _verify_shared(
    self, rollout: Rollout, own: np.ndarray, num_texts: int
  ) -> tuple[list[str], list[list[Verdict]]]:
    texts, found = self.verify(jax.tree.map(lambda leaf: leaf[own], rollout))
    mine = [
      (
        text if row < num_texts else '',
        [[v.reward, v.reason] for v in verdicts],
      )
      for row, text, *verdicts in zip(own.tolist(), texts, *found, strict=True)
    ]
    count = len(rollout.example_id)
    whole = host_rows.share(mine, own, count)
    everything = [text for text, _ in whole]
    for row, text in zip(own.tolist(), texts, strict=True):
      everything[row] = text
    return everything, [
      [Verdict(*verdicts[term]) for _, verdicts in whole]
      for term in range(len(found))
    ]
