"""Roofline model: work of a step by formula, and a lower bound of its time.

A matrix product with P weights costs 2 P FLOP per token forward and twice that
backward; attention 4 H d_h FLOP per layer for each visible query-key pair. The
LM head runs on completion tokens only. Compilers count a loop's body once, so
only the bytes of collectives come from the compiler.
"""

import dataclasses

from dppo_jax import hardware
from dppo_jax.models import moe
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.planning.aot.programs import SAMPLING, SCORING, TRAINING
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.sampling import slot_plan

# Kernels on TPUs have no estimate of the compiler; the share of the peak that
# they are counted at.
KERNEL_SHARE = 0.4
# Products of the backward kernels by those of the forward one: three for the
# gradient of queries, four for that of keys and values, and two.
_BACKWARD_PRODUCTS = 7 / 2
_WEIGHT_BYTES = {'bfloat16': 2, 'float32': 4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """Work of one run of a phase, over all devices.

  Attributes:
    useful: FLOP without padding and rematerialization.
    flops: FLOP with rematerialization.
    attention: FLOP of attention kernels, whose backward pass computes scores
      again.
    num_bytes: memory reads per device; 0 if the phase is compute bound.
  """

  useful: float
  flops: float
  attention: float
  num_bytes: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepEstimate:
  """Lower bound of a phase's time: all devices at their peaks.

  Attributes:
    compute_s: FLOPs over the peak.
    memory_s: bytes over memory bandwidth.
    links_s: bytes of collectives over link bandwidth within a slice.
  """

  compute_s: float
  memory_s: float
  links_s: float

  @property
  def seconds(self) -> float:
    """The longest of the three, as if they overlapped perfectly."""
    return max(self.compute_s, self.memory_s, self.links_s)


def layer_weights(model: TransformerConfig) -> float:
  """Matrix weights active per token, over all layers."""
  heads = 2 * model.num_heads + 2 * model.num_kv_heads
  projections = model.d_model * model.head_dim * heads
  sparse = sum(moe.is_sparse(model, i) for i in range(model.num_layers))
  wide = (model.num_layers - sparse) * model.d_ff
  wide += sparse * model.num_experts_per_tok * model.moe_intermediate_size
  gates = sparse * model.num_experts
  return model.num_layers * projections + model.d_model * (3 * wide + gates)


def stored_weights(model: TransformerConfig) -> float:
  """Matrix weights of all layers and experts, and of the LM head.

  A decode step with many rows reads them all.
  """
  whole = dataclasses.replace(
    model, num_experts_per_tok=max(model.num_experts, 1)
  )
  return layer_weights(whole) + model.vocab_size * model.d_model


def work(
  experiment: Experiment, tensor: int, num_devices: int
) -> dict[str, Work]:
  """Work per phase, with completions at full length.

  Args:
    experiment: the run.
    tensor: size of the tensor-parallel axis.
    num_devices: of the mesh.
  """
  model, data = experiment.model, experiment.data
  columns, prompt = (
    experiment.sampling.max_completion_length,
    data.max_prompt_length,
  )
  rows = data.num_prompts * data.group_size
  head = 2.0 * model.vocab_size * model.d_model * rows * columns

  def attention(prompts: int) -> float:
    pairs = prompts * prompt**2 / 2
    pairs += rows * columns * (prompt + columns / 2)
    return 4.0 * model.num_layers * model.num_heads * model.head_dim * pairs

  def forward(prompts: int) -> float:
    tokens = prompts * prompt + rows * columns
    return 2.0 * layer_weights(model) * tokens + attention(prompts)

  prompts_trained = rows // experiment.loss.shared_rows
  trained, attended = forward(prompts_trained), attention(prompts_trained)
  again = trained if model.remat == 'full' else 0.0
  kernels = 1 + (model.remat == 'full') + _BACKWARD_PRODUCTS
  # With LoRA, base weights need no gradient.
  backward = 1 if experiment.lora is not None else 2
  useful = (1 + backward) * trained + 3 * head
  itemsize = _WEIGHT_BYTES.get(model.dtype, 2)
  kv = 2 * model.num_layers * model.num_kv_heads * model.head_dim * itemsize
  shards = num_devices // tensor
  slots = slot_plan.plan_for(experiment.sampling, data.num_prompts, shards)
  steps, at_once, prompts_run = columns, rows, data.num_prompts
  cached_prompts = data.num_prompts
  if slots is not None:
    at_once = cached_prompts = slots.slots * shards
    steps = columns * rows // at_once
    prompts_run = slots.prompts * slots.rows // slots.refill * shards
  # Mean over decode steps.
  cached = cached_prompts * prompt + at_once * columns / 2
  step = stored_weights(model) * itemsize / tensor + kv * cached / num_devices
  needed = forward(data.num_prompts) + head
  sampled = forward(prompts_run) + head
  scored = trained + head
  return {
    SAMPLING: Work(
      useful=needed,
      flops=sampled,
      attention=0.0,
      num_bytes=step * steps,
    ),
    SCORING: Work(
      useful=scored, flops=scored, attention=attended, num_bytes=0.0
    ),
    TRAINING: Work(
      useful=useful,
      flops=useful + again,
      attention=kernels * attended,
      num_bytes=0.0,
    ),
  }


def compiled_seconds(
  done: Work, cycles: float, device_kind: str, num_devices: int
) -> float | None:
  """Seconds by the compiler's cycles, and of kernels at `KERNEL_SHARE`.

  Collectives, sorts and scatters have no estimate and count nothing.

  Args:
    done: of a phase that runs attention kernels.
    cycles: the compiler's, of a device.
    device_kind: as named by JAX.
    num_devices: that share the work.

  Returns:
    None where the compiler gives no cycles, or the device's clock is unknown.
  """
  device, clock = hardware.find_device(device_kind), hardware.clock(device_kind)
  if device is None or clock is None or not cycles:
    return None
  kernels = done.attention / num_devices / (KERNEL_SHARE * device.peak)
  return cycles / clock + kernels


def estimate(
  done: Work, device_kind: str, num_devices: int, sent: float
) -> StepEstimate | None:
  """Lower bound of a phase's time; None for a device without a data sheet.

  Args:
    done: from `work`.
    device_kind: as named by JAX.
    num_devices: that share the work.
    sent: bytes of collectives per device.
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
