"""Arguments of the pass over the vocabulary: layout, loss, targets."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import flax.struct

from dppo_jax.base import (
  Array,
  DivergenceFn,
  Integrand,
  LossFromStatsFn,
  Movement,
  TokenStats,
)
from dppo_jax.ops.centering import WeightFn
from dppo_jax.ops.divergences import Rate
from dppo_jax.parallel import VocabularyAxes

# (tokens, anchor, current) [C] to the rate of the divergence and its sums.
RateFn = Callable[
  [Array, TokenStats, TokenStats], tuple[Array, tuple[Array, ...]]
]
# (context, movement, sums of its rate) [C, ...] to weights of candidates.
CandidateWeightsFn = Callable[[Any, Movement, tuple[Array, ...]], WeightFn]
# (context, tokens, anchor, current) [C, ...] to a lower bound of D, and where D
# must be measured, [C] each.
CertifyFn = Callable[[Any, Array, TokenStats, TokenStats], tuple[Array, Array]]
# (context, tokens, anchor, current, movement, sums of its rate) [C, ...] to
# further measurements by metric name, [C] each.
MeterFn = Callable[
  [Any, Array, TokenStats, TokenStats, Movement, tuple[Array, ...]],
  dict[str, Array],
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
  """Layout of the pass.

  Attributes:
    axes: where rows and columns of the vocabulary live.
    head_chunk_tokens: C, tokens per chunk and device.
    temperature: divides the logits.
  """

  axes: VocabularyAxes
  head_chunk_tokens: int
  temperature: float


class HeadLoss(NamedTuple):
  """Loss in the form that the pass over the vocabulary takes.

  Attributes:
    loss_from_stats: the loss of a batch, and its record. It is called after
      every chunk with the stats known by then, zeros elsewhere.
    divergence_fn: divergence of the tokens of a chunk, each from its own stats
      alone. None where nothing is measured; not called where `integrand`
      measures, nor is the next.
    rate_fn: its rate, where the direction reads it.
    integrand: what is summed over the vocabulary, for a divergence of whole
      distributions; needs `Targets.anchor.hidden`.
    rate: of that divergence, where the direction reads it.
    needs_full_sequence: gradient coefficients depend on later tokens; otherwise
      on a token and those before it only.
    with_entropy: whether `loss_from_stats` reads the entropy.
    with_top_k: whether the record wants log pi of the recorded ids.
    centering: score centering: 'off', 'topk' or 'exact'.
    candidate_weights: what weighs the tokens of a centre.
    certify_fn: says of which tokens `integrand` is summed, and a bound for the
      others; None sums it for all.
    meter_fn: what is measured beside, where K log-probs are recorded.
    meters: names of what it measures.
    anchor_slip: the anchor's logits are divided by 1 + this times the
      temperature.
  """

  loss_from_stats: LossFromStatsFn
  divergence_fn: DivergenceFn | None = None
  rate_fn: RateFn | None = None
  integrand: Integrand | None = None
  rate: Rate | None = None
  needs_full_sequence: bool = False
  with_entropy: bool = False
  with_top_k: bool = False
  centering: str = 'off'
  candidate_weights: CandidateWeightsFn | None = None
  certify_fn: CertifyFn | None = None
  meter_fn: MeterFn | None = None
  meters: tuple[str, ...] = ()
  anchor_slip: float = 0.0

  @property
  def needs_anchor_logits(self) -> bool:
    """Whether the whole distribution of the anchor is read."""
    return self.integrand is not None or self.centering == 'exact'

  @property
  def reads_context(self) -> bool:
    """Whether a measurement reads the context of its tokens."""
    reads = self.meter_fn is not None or self.certify_fn is not None
    return reads or self.centering != 'off'

  @property
  def needs_distributions(self) -> bool:
    """Whether whole distributions of all tokens are compared."""
    exact = self.integrand is not None and self.certify_fn is None
    return exact or self.centering == 'exact'


@flax.struct.dataclass(kw_only=True)
class Targets:
  """Tokens whose loss the pass computes; rows are sharded like the batch.

  Attributes:
    tokens: i32 [B, R].
    mask: bool [B, R]; the head runs on these tokens only.
    anchor: stats of the anchor [B, R], with the ids to gather; both policies
      are softmax over its support.
    context: further input of `loss_from_stats`, [B, ...] leaves.
    anchor_head: [V, D], of the anchor's own logits, where whole distributions
      are compared.
  """

  tokens: Array
  mask: Array
  anchor: TokenStats
  context: Any
  anchor_head: Array | None = None
