"""The data that flows and the callables that plug in, declared once.

Prompts --sample--> Rollout --verify--> rewards --make_batch--> Batch
        --train_step(TrainState)--> TrainState', Metrics

Alignment: every `[B, T]` array is indexed by the token it is *about*.
`log_probs[b, t]` scores `tokens[b, t]` given `tokens[b, :t]`; column 0 is 0.0
and masked. Sizes: N prompts, G completions per prompt, B = N·G sequences, P
prompt columns, R completion columns, T = P + R, V vocabulary, K recorded
entries per token, D hidden width.
"""

from collections.abc import Mapping
import enum
from typing import Any, Protocol

import flax.struct
import jax
import numpy as np

from dppo_jax.thresholds import Thresholds

Array = jax.Array
Params = Any  # Nested dict of arrays with stable names.
OptState = Any  # Whatever the optax chain holds.
Example = Mapping[str, Any]  # One data row: 'example_id', 'prompt', 'answer'.
Metrics = dict[str, Array]  # 'group/name' -> f32 [].


@flax.struct.dataclass(kw_only=True)
class Prompts:
  """N prompts, left-padded so that all of them end in the last column.

  Attributes:
    tokens: i32 [N, P].
    mask: bool [N, P], True on real tokens.
    example_id: i32 [N]; the text stays on the host, keyed by this id.
  """

  tokens: Array
  mask: Array
  example_id: Array


@flax.struct.dataclass(kw_only=True)
class TokenStats:
  """Stats of one policy at each token of a rollout.

  Attributes:
    log_probs: f32 [B, T], log-prob of the token in nats, <= 0; 0.0 where
      masked.
    top_ids: i32 [B, T, K], the K most likely tokens of the *rollout* policy.
    top_log_probs: f32 [B, T, K], this policy's log-probs of `top_ids`.
    entropy: f32 [B, T] in nats.
    hidden: [B, T, D], the state this policy predicted the token from; kept
      where whole distributions are compared.
    centre: f32 [B, T], sum_v c_v log pi_v in nats, see `ops/centering.py`.
    support: i32 [B, T, S], tokens that could be sampled, then -1; None: all.
  """

  log_probs: Array
  top_ids: Array | None = None
  top_log_probs: Array | None = None
  entropy: Array | None = None
  hidden: Array | None = None
  centre: Array | None = None
  support: Array | None = None


@flax.struct.dataclass(kw_only=True)
class Conversations:
  """Turns of rows that an environment answered, and its rewards.

  Attributes:
    turn: i32 [B, T], the turn that a token was sampled in, from 1; else 0.
    reward: f32 [B].
    reason: u8 [B, L], of the reward: UTF-8, filled up with zeros.
    replies_cut: i32 [B], replies that were longer than may be.
    malformed: i32 [B], messages that the environment could not read.
  """

  turn: Array
  reward: Array
  reason: Array
  replies_cut: Array
  malformed: Array


@flax.struct.dataclass(kw_only=True)
class Rollout:
  """Prompts with the completions sampled for them; rows of a group adjoin.

  Attributes:
    tokens: i32 [B, T], a left-padded prompt [B, P], then a right-padded
      completion [B, R].
    token_mask: bool [B, T], True on real tokens, prompt and completion.
    completion_mask: bool [B, T], True on sampled tokens, the end included.
    stats: of the policy that sampled, at the tokens (mu).
    group_id: i32 [B], index of the prompt in its batch.
    example_id: i32 [B].
    truncated: bool [B], True where the length limit cut the completion.
    routes: unsigned [B, T, M, k], the experts that the sampler's M sparse
      layers gave each token, kept where the trainer replays them; anything
      where masked, and at the last token, which the sampler need not have run.
    decode_steps: i32 [B], decode steps executed by this row's slot since it
      started, those after its end included.
    conversation: where an environment answers.
  """

  tokens: Array
  token_mask: Array
  completion_mask: Array
  stats: TokenStats
  group_id: Array
  example_id: Array
  truncated: Array
  routes: Array | None = None
  decode_steps: Array | None = None
  conversation: Conversations | None = None


@flax.struct.dataclass(kw_only=True)
class Batch:
  """Rollout arrays that the loss reads.

  Attributes:
    tokens: i32 [B, T].
    token_mask: bool [B, T].
    completion_mask: bool [B, T].
    advantages: f32 [B, T], 0.0 where masked.
    rollout: stats of the policy that sampled (mu).
    recomputed: stats of the same parameters, recomputed by the trainer.
    reference: stats of the frozen policy of a KL penalty.
    routes: as in `Rollout`; the trainer replays them where they are there.
    turn: as in `Conversations`.
  """

  tokens: Array
  token_mask: Array
  completion_mask: Array
  advantages: Array
  rollout: TokenStats
  recomputed: TokenStats | None = None
  reference: TokenStats | None = None
  routes: Array | None = None
  turn: Array | None = None


@flax.struct.dataclass(kw_only=True)
class Demonstrations:
  """Prompts with the completions to imitate; layout as in `Rollout`.

  Attributes:
    tokens: i32 [B, T].
    token_mask: bool [B, T].
    completion_mask: bool [B, T].
  """

  tokens: Array
  token_mask: Array
  completion_mask: Array


@flax.struct.dataclass(kw_only=True)
class Signals:
  """Measurements that a trust region decides by; f32 [B, T] unless said.

  Attributes:
    advantages: A.
    log_probs: log pi of the sampled token.
    anchor_log_probs: the anchor's log-prob of it.
    divergence: D between the anchor and pi, unit of its row.
    mask: bool [B, T], completion tokens.
    rate: dD / d eta, see `divergences.Rate`; where the direction reads it.
    anchor_entropy: of the anchor, nats; where a rule reads it.
  """

  advantages: Array
  log_probs: Array
  anchor_log_probs: Array
  divergence: Array
  mask: Array
  rate: Array | None = None
  anchor_entropy: Array | None = None


@flax.struct.dataclass(kw_only=True)
class Movement:
  """How far pi is from the anchor at every token, and where a step leads.

  Attributes:
    divergence: D, f32 [B, T], unit of its row.
    rate: as in `Signals`, f32 [B, T].
    meters: further measurements by metric name, f32 [B, T] each.
  """

  divergence: Array
  rate: Array | None = None
  meters: dict[str, Array] = flax.struct.field(default_factory=dict)


@flax.struct.dataclass(kw_only=True)
class Decisions:
  """Decisions of the trust region per token, at the update that used it.

  Attributes:
    log_probs: f32 [B, R], log pi.
    divergence: f32 [B, R], unit of its row.
    keep: f32 [B, R], M; 0.0 where masked.
    diagnostics: metrics of the rule and of meters by name, f32 [B, R] each.
    top_log_probs: f32 [B, R, K], log pi of the recorded ids, for a ledger.
    router: statistics by metric name of the rows that were run with this one,
      f32 [B] each; none of a dense model.
  """

  log_probs: Array
  divergence: Array
  keep: Array
  diagnostics: dict[str, Array]
  top_log_probs: Array | None = None
  router: dict[str, Array] = flax.struct.field(default_factory=dict)


@flax.struct.dataclass(kw_only=True)
class TrainState:
  """Everything a step changes; arrays only, so it donates and checkpoints.

  Attributes:
    step: i32 [], train steps (rollout batches) taken.
    params: master parameters, f32.
    opt_state: state of the optimizer.
    key: PRNG key of the run, constant; steps and streams are folded in.
  """

  step: Array
  params: Params
  opt_state: OptState
  key: Array


class Stream(enum.IntEnum):
  """Uses of randomness; each gets keys of its own."""

  INIT = 0
  SAMPLE = 1
  SHUFFLE = 2
  EVALUATE = 3
  RESAMPLE = 4
  SELECT = 5
  NOISE = 6


def stream_key(key: Array, stream: Stream, step: Array | int) -> Array:
  """Key of one use at one step: a function of (seed, stream, step) alone."""
  return jax.random.fold_in(jax.random.fold_in(key, stream), step)


class Tokenizer(Protocol):
  """Text to ids and back.

  Attributes:
    vocab_size: V, one more than the largest id.
    pad_id: fills what is masked.
    eos_ids: each of them ends a completion; the first ends a demonstration.
  """

  vocab_size: int
  pad_id: int
  eos_ids: tuple[int, ...]

  def encode(self, text: str) -> list[int]:
    """The ids of a text, nothing added."""
    ...

  def encode_prompt(self, text: str) -> list[int]:
    """The ids of a prompt as the policy is shown it, its template included."""
    ...

  def encode_reply(self, text: str, max_length: int) -> tuple[list[int], bool]:
    """Ids between two turns, `max_length` of the text; whether it was cut."""
    ...

  def decode(self, ids: Any) -> str:
    """The text of i32 [R] ids, without pads and ends."""
    ...

  def decode_batch(self, ids: Any, mask: Any) -> list[str]:
    """The texts of i32 [B, R] ids where bool [B, R] is True."""
    ...


class DivergenceFn(Protocol):
  """Divergence of two policies at every token, anchor first: f32 [B, T]."""

  def __call__(
    self, tokens: Array, anchor: TokenStats, current: TokenStats
  ) -> Array: ...


class AdvantageFn(Protocol):
  """Rewards f32 [N, G] to advantages f32 [N, G]."""

  def __call__(self, rewards: Array) -> Array: ...


class Integrand(Protocol):
  """Term of a divergence that is summed over the vocabulary.

  mu, pi and log(mu / pi) of any one shape to the same shape. The logarithm is
  an argument of its own: it is known better than from the quotient.
  """

  def __call__(self, mu: Array, pi: Array, log_ratio: Array) -> Array: ...


class KeepFn(Protocol):
  """Keep weight M of every token: f32 [B, T].

  In [0, 1], or beyond where the row is `signed`; below 0 it pushes back.
  """

  def __call__(self, signals: Signals, bounds: Thresholds, /) -> Array: ...


class LossFn(Protocol):
  """Loss of a train step: f32 [], and a record with leaves [b, ...].

  The batch is a pytree of [b, T] arrays, the weights are f32 [b, R], of each
  completion token; `shared` is the same for all rows, not differentiated.
  """

  def __call__(
    self, params: Params, batch: Any, weights: Array, /, shared: Any
  ) -> tuple[Array, Any]: ...


class LossFromStatsFn(Protocol):
  """Loss f32 [] from pi's stats [B, R], and a record with leaves [B, ...].

  The context, [B, ...] leaves, is fixed; so is the movement.
  """

  def __call__(
    self, context: Any, current: TokenStats, movement: Movement, /
  ) -> tuple[Array, Any]: ...


class LossFormFn(Protocol):
  """Loss per token from log pi, importance weight, A and M: all f32 [B, T]."""

  def __call__(
    self, log_probs: Array, weight: Array, advantages: Array, keep: Array, /
  ) -> Array: ...


class Verifier(Protocol):
  """Reward of a completion, 1.0 right and 0.0 wrong, and a short reason.

  Args:
    completion: text without the end token.
    example: the data row, with 'answer'.
    truncated: whether the length limit cut the completion.
  """

  def __call__(
    self, completion: str, example: Example, truncated: bool, /
  ) -> tuple[float, str]: ...


class Environment(Protocol):
  """Text, state, reward and reason: the reply to what the policy wrote.

  Pure, so that a run resumes bit for bit. The state is a JSON value, None at
  the first message; the seed is that of a prompt at a step. A reward ends the
  conversation, None goes on.
  """

  def __call__(
    self, message: str, state: Any, example: Example, seed: int, /
  ) -> tuple[Any, ...]: ...


class RewardFn(Protocol):
  """Shaping added to rewards in training: f64 [N, G].

  From lengths i [N, G], tokens with the end; which answers are right, bool
  [N, G]; and a `rewards/shaping.py: ShapingConfig`.
  """

  def __call__(
    self, lengths: np.ndarray, right: np.ndarray, config: Any, /
  ) -> np.ndarray: ...


class PolicyApply(Protocol):
  """Tokens i32 [B, T] to final hidden states [B, T, D]."""

  def __call__(
    self, params: Params, tokens: Array, mask: Array, /
  ) -> Array: ...
