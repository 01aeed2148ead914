"""Metrics of `metrics.jsonl`: units and meanings; and the names in the code."""

import ast
import pathlib
import re
from typing import NamedTuple

_PACKAGE = pathlib.Path(__file__).resolve().parents[2] / 'dppo_jax'


class Metric(NamedTuple):
  """Unit and meaning of a metric.

  Attributes:
    unit: of its value; 'share' is of completion tokens unless stated otherwise.
    meaning: one sentence.
  """

  unit: str
  meaning: str


# '…' stands for a name that depends on the run.
METRICS = {
  'rewards/mean': Metric('reward', 'mean over the batch, after shaping'),
  'rewards/std': Metric('reward', 'standard deviation over the batch'),
  'rewards/zero_variance_groups': Metric(
    'share of prompts', 'all rewards of the group are equal: no gradient'
  ),
  'rewards/errors': Metric(
    'share of completions', 'the verifier failed or its process died'
  ),
  'rewards/timeouts': Metric(
    'share of completions', 'the verifier exceeded its time limit'
  ),
  'rewards/reason_…': Metric(
    'share of completions', "by the first verifier's reason; they sum to 1"
  ),
  'rewards/term_…': Metric(
    'reward', 'mean of one verifier of several, before weighting'
  ),
  'rewards/mean_turns_…': Metric(
    'reward', 'mean over conversations of so many turns; 0 if there are none'
  ),
  'rewards/shaping': Metric('reward', 'mean of what length shaping adds'),
  'rewards/model_mean': Metric('score', 'of the reward model, not weighted'),
  'rewards/model_std': Metric('score', 'of the reward model, not weighted'),
  'rewards/model_cut': Metric(
    'texts', 'longer than model_max_length, so truncated on the left'
  ),
  'rewards/model_failed': Metric(
    'texts', 'rejected by the chat template; they get the lowest score'
  ),
  'rewards/sampled_mean': Metric(
    'reward', 'dynamic sampling: mean over all that was sampled'
  ),
  'rollout/length_mean': Metric('tokens', 'mean completion length'),
  'rollout/length_max': Metric('tokens', 'longest completion'),
  'rollout/truncated': Metric(
    'share of completions', 'ended by the length limit'
  ),
  'rollout/entropy_mean': Metric(
    'nats per token', 'entropy of the sampling distribution'
  ),
  'rollout/topk_mass': Metric(
    'probability', 'mean mass of the K recorded tokens under mu'
  ),
  'rollout/support': Metric(
    'tokens', 'mean number that could be sampled, under a filter'
  ),
  'rollout/support_full': Metric(
    'share of tokens',
    'with sampling.support_top_k tokens in the support: its nucleus, if there'
    ' is one, may have had more',
  ),
  'integrity/log_probs': Metric(
    'nats',
    'mean |recorded - scored| of the first row of a batch shard: the trainer'
    " scores it with the sampler's weights",
  ),
  'integrity/top_log_probs': Metric('nats', 'the same of the K recorded'),
  'integrity/entropy': Metric('nats', 'the same of the entropy'),
  'integrity/turn_edges': Metric(
    'nats', 'largest where a turn after the first begins'
  ),
  'integrity/digest': Metric(
    '24 bits', "of the digest of the sampler's weights"
  ),
  'integrity/fields_recorded': Metric('fields', 'of the stats of a rollout'),
  'integrity/fields_used': Metric('fields', 'of these that the loss reads'),
  'rollout/useful_decode_share': Metric(
    'share of slot-steps',
    'decode efficiency: slot-steps that produced a kept token; the first token'
    ' of a completion comes from the prefill and counts as no step',
  ),
  'rollout/turns_mean': Metric('turns', 'of a conversation'),
  'rollout/share_turns_…': Metric('share of conversations', 'of so many turns'),
  'rollout/told_share': Metric(
    'share of tokens', 'of replies, among those of conversations'
  ),
  'rollout/replies_cut': Metric(
    'share of conversations', 'with a reply over environment.max_reply_length'
  ),
  'rollout/malformed_messages': Metric(
    'messages per conversation',
    'that the environment could not read, such as a tool call without an end',
  ),
  'rollout/batches': Metric(
    'batches', 'dynamic sampling: batches sampled for this step'
  ),
  'rollout/lag': Metric(
    'steps', 'age of the sampling parameters: off-policy lag'
  ),
  'weight_sync/bytes': Metric(
    'bytes per device', 'received in the weight sync to the sampler'
  ),
  'trust_region/fraction_masked': Metric('share', 'tokens with M = 0'),
  'trust_region/mean_dropped_weight': Metric(
    '1', 'mean of 1 - M: weight removed by the rule, also by soft rules'
  ),
  'trust_region/fraction_masked_negative': Metric(
    'share', 'masked, with A < 0'
  ),
  'trust_region/fraction_masked_positive': Metric(
    'share', 'masked, with A > 0'
  ),
  'trust_region/fraction_masked_rare': Metric('share', 'masked, with mu < .1'),
  'trust_region/fraction_masked_turn_…': Metric(
    'share of the tokens of a turn', 'masked, of conversations'
  ),
  'trust_region/divergence_mean': Metric(
    'probability or nats', 'the configured divergence D, mean over tokens'
  ),
  'trust_region/divergence_max': Metric(
    'probability or nats', 'the configured divergence D, largest token'
  ),
  'trust_region/bad_updates': Metric('share', 'A < 0 and mu - pi >= .5'),
  'mismatch/mean_abs': Metric(
    'probability',
    'mean of |pi - mu| of the sampled tokens, each at the update that used it:'
    ' sampler mismatch and off-policy drift together',
  ),
  'mismatch/max': Metric('probability', 'largest pi - mu'),
  'mismatch/min': Metric('probability', 'least pi - mu'),
  'mismatch/first_update_mean_abs': Metric(
    'probability',
    'the same mean at the first update of a step, before any parameter changed:'
    ' sampler mismatch (and lag) alone',
  ),
  'drift/coefficient_sum': Metric(
    '1',
    'sum of the coefficients c of Top-K score centering over the K recorded'
    ' tokens, also with centering off (then of the weights with M, for a rule'
    ' of single tokens): the mass that the mean of the weighted score moves'
    ' into (+) or out of (-) them; mean over tokens',
  ),
  'drift/coefficient_abs': Metric(
    '1', 'sum of |c|: 0 where the weighted score has no mean'
  ),
  'drift/topk_mass': Metric(
    'probability', 'mass of the K recorded tokens under pi; cf. rollout/'
  ),
  'direction/disagree': Metric(
    'share',
    "A D' and A (pi - mu) have different signs: the predictive direction"
    " and the sampled one disagree; D' from the K recorded tokens unless the"
    ' rule is predictive itself',
  ),
  'certificate/decided': Metric(
    'share',
    'delta is outside the bounds of the exact TV that the K recorded tokens'
    ' give; for rules on a divergence in probability',
  ),
  'ratio/mean': Metric('1', 'mean of pi / mu'),
  'ratio/max': Metric('1', 'largest pi / mu'),
  'cppo/budget_effective': Metric(
    'unit of D', 'delta_b per position, mean over tokens'
  ),
  'cppo/masked_by_budget': Metric(
    'share', 'tokens that only the prefix budget masked'
  ),
  'router/load_balance': Metric(
    '1', 'load-balance loss, k where the load is even; mean over microbatches'
  ),
  'router/entropy': Metric(
    'nats', "entropy of a token's expert distribution; mean over microbatches"
  ),
  'router/max_expert_share': Metric(
    'share of assignments', "the busiest expert's, in its layer"
  ),
  'loss/total': Metric('loss', 'mean over the updates of the step'),
  'optimizer/learning_rate': Metric('1', 'of the first update of the step'),
  'optimizer/gradient_norm': Metric('1', 'global, before clipping; mean'),
  'optimizer/nonfinite_in_a_row': Metric(
    'updates', 'skipped one after another because of NaN or inf gradients'
  ),
  'optimizer/nonfinite_total': Metric('updates', 'skipped since the start'),
  'evaluation/sampled_accuracy': Metric(
    'share of samples', 'avg@k: mean accuracy over all samples'
  ),
  'evaluation/sampled_accuracy_low': Metric(
    'share of samples', 'lower end of its bootstrap interval'
  ),
  'evaluation/sampled_accuracy_high': Metric(
    'share of samples', 'upper end of its bootstrap interval'
  ),
  'evaluation/pass_at_k': Metric(
    'share of problems', 'unbiased pass@k, k = evaluation.num_samples'
  ),
  'evaluation/pass_at_…': Metric(
    'share of problems', 'the same for 1, 2, 4, … up to k'
  ),
  'evaluation/greedy_accuracy': Metric(
    'share of problems', 'greedy decoding, if evaluation.greedy'
  ),
  'evaluation/accuracy_…': Metric(
    'share of samples', 'of one source of several'
  ),
  'evaluation/model_score': Metric(
    'score', 'of the reward model, if evaluation.reward is model'
  ),
  'evaluation/model_score_low': Metric('score', 'lower end of its interval'),
  'evaluation/model_score_high': Metric('score', 'upper end of its interval'),
  'evaluation/greedy_model_score': Metric(
    'score', 'of greedy decoding, if evaluation.greedy'
  ),
  'evaluation/length_mean': Metric('tokens', 'mean completion length'),
  'evaluation/truncated': Metric(
    'share of samples', 'ended by the length limit'
  ),
  'time/step_s': Metric('s', 'wall time of the step'),
  'time/step_cpu_s': Metric('s', 'CPU time of the process in the step'),
  'time/…_s': Metric(
    's',
    'wall time of a part: weight_sync, sampling, verification,'
    ' training, ledger; with a lag, sampling is what the host waited for',
  ),
  'throughput/useful_token_share': Metric(
    'share of columns',
    'completion tokens by the completion columns that training ran',
  ),
  'throughput/sampled_tokens_per_s': Metric(
    'tokens/s', 'by sampling time; with a lag, by the whole step'
  ),
  'throughput/trained_tokens_per_s': Metric(
    'tokens/s', 'prompt and completion tokens, by training time'
  ),
}


def groups() -> list[str]:
  """Groups of the metrics, in the order of the table."""
  return list(dict.fromkeys(name.split('/')[0] for name in METRICS))


def names_in_code() -> set[str]:
  """Metric names among the package's strings, '…' for formatted parts."""
  whole = re.compile(rf'(?:{"|".join(groups())})/[a-z0-9_…]+')
  found = set()
  for path in _PACKAGE.rglob('*.py'):
    if 'experiments' in path.relative_to(_PACKAGE).parts:
      continue  # A link, for the console command.
    tree = ast.parse(path.read_text())
    parts = {
      id(part)
      for node in ast.walk(tree)
      if isinstance(node, ast.JoinedStr)
      for part in node.values
    }
    for node in ast.walk(tree):
      text = ''
      if id(node) in parts:
        continue
      if isinstance(node, ast.JoinedStr):
        text = ''.join(
          str(part.value) if isinstance(part, ast.Constant) else '…'
          for part in node.values
        )
      elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
      if whole.fullmatch(text):
        found.add(text)
  return found
