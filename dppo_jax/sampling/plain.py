"""Settings of sampling for what measures or compares a policy."""

from dppo_jax.sampling.decode import SamplingConfig


def plain_sampling(
  max_completion_length: int,
  *,
  group_size: int = 1,
  greedy: bool = False,
  top_k: int = 0,
) -> SamplingConfig:
  """The law of the policy itself, in f32; every row is of full length.

  Args:
    max_completion_length: R, tokens.
    group_size: G, completions per prompt.
    greedy: whether to take the most likely token.
    top_k: K, log-probs recorded per token.
  """
  return SamplingConfig(
    group_size=group_size,
    max_completion_length=max_completion_length,
    temperature=1.0,
    top_p=1.0,
    support=None,
    greedy=greedy,
    top_k=top_k,
    with_hidden=False,
    with_routes=False,
    precision='float32',
    pad_id=0,
    eos_ids=(),
    stop_ids=(),
    num_slots=0,
    cache_columns=0,
  )
