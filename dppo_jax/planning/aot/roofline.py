"""Work of a step by formula, and the least time that a machine needs for it.

A matrix product of P weights costs 2 P FLOP a token forward and twice that
backward; attention 4 H d_h FLOP a layer for each pair of a query and a key it
sees. The head runs on completion tokens only. Compilers count the body of a
loop once, so nothing here is theirs but the bytes of collectives.
"""

import dataclasses

from dppo_jax import hardware
from dppo_jax.models import moe
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.planning.aot.programs import SAMPLING, SCORING, TRAINING
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.sampling import continuous

_WEIGHT_BYTES = {'bfloat16': 2, 'float32': 4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """Of all devices together, in one run of a phase.

  Attributes:
    useful: FLOP that the result needs; no padding, no second forward pass.
    flops: with what rematerialization computes again.
    num_bytes: that the device at work reads of its memory, each; 0 where FLOPs
      bound it.
  """

  useful: float
  flops: float
  num_bytes: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepEstimate:
  """The least time of a phase: devices at their peaks, all of them at work.

  Attributes:
    compute_s: FLOPs over the peak.
    memory_s: bytes over the bandwidth of memory.
    links_s: bytes of collectives over that of links within a slice.
  """

  compute_s: float
  memory_s: float
  links_s: float

  @property
  def seconds(self) -> float:
    """The longest of the three, as if they overlapped wholly."""
    return max(self.compute_s, self.memory_s, self.links_s)


def layer_weights(model: TransformerConfig) -> float:
  """Weights of matrix products that a token meets in all layers."""
  heads = 2 * model.num_heads + 2 * model.num_kv_heads
  projections = model.d_model * model.head_dim * heads
  sparse = sum(moe.is_sparse(model, i) for i in range(model.num_layers))
  wide = (model.num_layers - sparse) * model.d_ff
  wide += sparse * model.num_experts_per_tok * model.moe_intermediate_size
  gates = sparse * model.num_experts
  return model.num_layers * projections + model.d_model * (3 * wide + gates)


def stored_weights(model: TransformerConfig) -> float:
  """Weights of matrix products that all experts and layers hold, and the head.

  What a decode step of many rows reads.
  """
  whole = dataclasses.replace(
    model, num_experts_per_tok=max(model.num_experts, 1)
  )
  return layer_weights(whole) + model.vocab_size * model.d_model


def work(
  experiment: Experiment, tensor: int, num_devices: int
) -> dict[str, Work]:
  """Work of every phase, all completions at their full length.

  Args:
    experiment: the run.
    tensor: devices that share a row's heads and vocabulary.
    num_devices: of the mesh.
  """
  model, data = experiment.model, experiment.data
  columns, prompt = (
    experiment.sampling.max_completion_length,
    data.max_prompt_length,
  )
  rows = data.num_prompts * data.group_size
  head = 2.0 * model.vocab_size * model.d_model * rows * columns

  def forward(prompts: int) -> float:
    tokens = prompts * prompt + rows * columns
    pairs = prompts * prompt**2 / 2
    pairs += rows * columns * (prompt + columns / 2)
    each = 4 * model.num_layers * model.num_heads * model.head_dim
    return 2.0 * layer_weights(model) * tokens + each * pairs

  trained = forward(rows // experiment.loss.shared_rows)
  again = trained if model.remat == 'full' else 0.0
  # A frozen base needs no gradient of its weights.
  backward = 1 if experiment.lora is not None else 2
  useful = (1 + backward) * trained + 3 * head
  itemsize = _WEIGHT_BYTES.get(model.dtype, 2)
  kv = 2 * model.num_layers * model.num_kv_heads * model.head_dim * itemsize
  shards = num_devices // tensor
  slots = continuous.plan_for(experiment.sampling, data.num_prompts, shards)
  steps, at_once, prompts_run = columns, rows, data.num_prompts
  cached_prompts = data.num_prompts
  if slots is not None:
    at_once = cached_prompts = slots.slots * shards
    steps = columns * rows // at_once
    prompts_run = slots.prompts * slots.rows // slots.refill * shards
  # The mean of a step.
  cached = cached_prompts * prompt + at_once * columns / 2
  step = stored_weights(model) * itemsize / tensor + kv * cached / num_devices
  needed = forward(data.num_prompts) + head
  sampled = forward(prompts_run) + head
  scored = trained + head
  return {
    SAMPLING: Work(useful=needed, flops=sampled, num_bytes=step * steps),
    SCORING: Work(useful=scored, flops=scored, num_bytes=0.0),
    TRAINING: Work(useful=useful, flops=useful + again, num_bytes=0.0),
  }


def estimate(
  done: Work, device_kind: str, num_devices: int, sent: float
) -> StepEstimate | None:
  """The least time of a phase; None for a device without a data sheet.

  Args:
    done: of `work`.
    device_kind: as JAX names it.
    num_devices: that share it.
    sent: bytes of collectives by each of them.
  """
  device = hardware.find_device(device_kind)
  link = hardware.find_link(device_kind)
  if device is None or link is None:
    return None
  return StepEstimate(
    compute_s=done.flops / num_devices / device.peak,
    memory_s=done.num_bytes / device.bandwidth,
    links_s=sent / link,
  )
