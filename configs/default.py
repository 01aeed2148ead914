"""Every key of an experiment, its default, its unit or meaning.

A config is `default.get_config()` with some keys replaced; a key that is not
here does not exist, so a misspelled override fails with a suggestion. Sections
are named after the modules that read them.
"""

import ml_collections

from dppo_jax.configs import presets


def get_config(preset: str = '') -> ml_collections.ConfigDict:
  """Returns the defaults, locked.

  Args:
    preset: a key of `presets.PRESETS`, or '' for the defaults themselves.
  """
  config = ml_collections.ConfigDict()

  config.seed = 0  # Of all PRNG keys and data orders.
  config.num_steps = 200  # Train steps, one rollout batch each.

  config.data = dict(
    source='task',  # task, reasoning_gym, or a data set: gsm8k, …, rows.
    task='sort',  # Of source task: sort, addition, running_sum, …
    tasks=(),  # Of reasoning_gym: names, or (name, weight[, parameters]).
    num_items=2048,  # Of each of them; 1/8 each held out twice.
    files='',  # Path or glob; '': data_dir/files/SOURCE.
    fields=dict(  # Of source rows, by path: 'outer.inner[0]'; '' for none.
      prompt='prompt',  # Or a template of several: '{Body} {Question}'.
      answer='answer',
      options='',  # Multiple choice, listed in the prompt; answer: a letter.
      level='',
      source='',
      extra='*',  # Fields kept for verifiers: *, or names, or 'name=path, …'.
    ),
    mixture=(),  # Instead of a source: (source, files, weight[, fields]).
    data_dir='~/.cache/dppo_jax/data',  # Root folder of data sets.
    tokenizer='',  # Folder, .gguf; '': of `pretrained`, or one token per word.
    prompt_template='{prompt}',  # Text around a problem.
    chat_template=False,  # Prompts are the user's turn of a chat.
    chat_template_arguments=(),  # Pairs: (('enable_thinking', False),).
    system_prompt='',  # System turn before the user's.
    dynamic_sampling='off',  # Groups of equal rewards: off, drop, resample.
    max_resampling=4,  # Additional batches sampled per step, at most.
    num_prompts=64,  # N, prompts per train step.
    group_size=16,  # G, completions per prompt.
    max_prompt_length=9,  # P, tokens.
    overlong='filter',  # Prompts longer than P: filter or error.
    max_unverifiable=0.05,  # Allowed share of references rejected by verifiers.
  )

  config.rewards = dict(
    verifier='exact_match',  # Keys of VERIFIERS: 'math + 0.1 * think_answer'.
    extraction='whole',  # Answer extractors, in order: 'boxed, hashes'.
    read_thoughts=False,  # Accept an answer inside <think> if none follows.
    time_limit_s=2.0,  # CPU seconds per verification.
    wall_limit_s=60.0,  # Wall-clock seconds per verification.
    memory_limit_mb=4096,  # MiB of address space per verifier process.
    max_failed=5,  # Wholly failed batches in a row that stop the run.
    num_workers=0,  # Verifier processes; 0 runs trusted verifiers in process.
    truncated='zero',  # Completions at the limit: zero, score (as text), mask.
    shaping='none',  # Keys of SHAPINGS, added in training: 'overlong'.
    overlong_cache=0,  # overlong: tokens before the limit with a penalty.
    model='',  # Folder of a reward model, whose score is added.
    model_weight=1.0,  # Of that score.
    model_batch_size=16,  # Sequences scored at once.
    model_max_length=4096,  # Tokens; longer texts are truncated on the left.
  )

  config.model = dict(
    pretrained='',  # Folder or GGUF file of a published model: shape, weights.
    vocab_size=0,  # V; 0: that of the tokenizer, or of `pretrained`.
    num_layers=2,
    d_model=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    d_ff=256,  # Width of the gated feed-forward layer.
    num_experts=0,  # Experts per MoE layer; 0: a dense model.
    num_experts_per_tok=8,  # Experts per token.
    moe_intermediate_size=128,  # Width of an expert.
    norm_topk_prob=True,  # Normalize the gates of a token to sum to 1.
    decoder_sparse_step=1,  # One MoE layer per this many layers.
    mlp_only_layers=(),  # Dense layers of an MoE model, by index from 0.
    rope_theta=10_000.0,  # Base of the rotary wavelengths.
    rope_scaling='none',  # none, linear or llama3.
    rope_factor=1.0,  # Context stretch of the two scalings.
    rope_low_frequency_factor=1.0,  # llama3 only.
    rope_high_frequency_factor=4.0,  # llama3 only.
    rope_original_length=8192,  # llama3 only; tokens.
    qk_norm=True,  # RMS-normalize queries and keys (Qwen3).
    qkv_bias=False,  # Bias of the projections (Qwen2).
    tied_head=True,  # The LM head is the embedding, transposed.
    norm_epsilon=1e-6,
    init_scale=0.02,  # Standard deviation of the initial weights.
    dtype='float32',  # Compute dtype: float32 or bfloat16.
    scan_unroll=1,  # Layers unrolled per scan step; divides num_layers.
    shard_sequence=False,  # Sequence parallelism: activations over mesh.tensor.
    shard_attention='heads',  # What mesh.tensor splits there: heads or columns.
    remat='none',  # Saved for the backward pass: none (all), dots, full.
    attention='auto',  # auto (device), blockwise, splash, triton, materialised.
  )

  config.lora = dict(  # Only the adapter is trained, not the base weights.
    rank=0,  # r; 0 trains all weights instead.
    alpha=64.0,  # The adapter's output is scaled by alpha / rank.
    targets=('query', 'key', 'value', 'output', 'gate', 'up', 'down'),
    pretrained='',  # Folder of an initial adapter, in PEFT's format.
    base_dtype='',  # Of base weights: float32, bfloat16; '': as published.
  )

  config.sampling = dict(
    max_completion_length=9,  # R, tokens, the end token included.
    stop_strings=(),  # Texts that end a completion, like the end token.
    temperature=1.0,  # Divides the logits, in the sampler and the trainer.
    top_k=20,  # K, log-probs recorded per token; 0 records none.
    support_top_k=0,  # Sample among so many likeliest tokens; 0: all.
    support_top_p=1.0,  # And the smallest set of likeliest with this mass.
    support_min_p=0.0,  # And those of this share of the likeliest's, or more.
    precision='float32',  # Of the weights: float32 bfloat16 int8 fp8 int4.
    weight_noise=0.0,  # Relative standard deviation of noise on its weights.
    temperature_slip=0.0,  # It samples at (1 + slip) times the temperature.
    gather_fsdp=False,  # Gather weights over mesh.fsdp per rollout, not token.
    lag=0,  # Off-policy lag: rollouts use the parameters k steps earlier.
    num_slots=0,  # Continuous batching: rows decoded at once; 0: all.
    integrity_every_n_steps=1,  # Weights and records are checked; 0: never.
    cache_columns=0,  # Of the first KV cache, doubled once full; 0: the limit.
  )

  config.environment = dict(  # Conversations of several turns.
    name='',  # Key of ENVIRONMENTS, or 'module:function'; '': one turn, none.
    max_turns=4,  # Turns of the policy; without a reward by then it is 0.
    max_turn_length=0,  # Tokens of a turn, its end included; 0: the limit R.
    max_reply_length=64,  # Tokens of a reply's text; the rest is cut off.
  )

  config.advantages = dict(estimator='group_mean')  # Key of ADVANTAGES.

  config.trust_region = dict(
    rule='divergence',  # Key of TRUST_REGIONS.
    divergence='topk_tv',  # Key of DIVERGENCES, measured in every run.
    top_k_set='union',  # Top-K atoms: union (paper), replace_kth (its code).
    anchor='rollout',  # Policy to compare with: rollout, recomputed.
    direction='away',  # Tokens it applies to: away, predictive, any.
    predictive_tail='aggregated',  # Of a Top-K's rest: aggregated, uniform.
    advantage_sign='both',  # Tokens it applies to: both, negative, positive.
    alpha_low=0.0,  # A < 0: tokens less likely than this are exempt.
    alpha_high=0.0,  # A > 0: tokens less likely than this are exempt.
    delta_low=0.2,  # Bound for A < 0, in the unit of the divergence.
    delta_high=0.2,  # Bound for A > 0.
    clip_low=0.2,  # Ratio clip below 1 - clip_low.
    clip_high=0.2,  # Ratio clip above 1 + clip_high.
    dual_clip=3.0,  # dual_clip: ratio bound for A < 0.
    w_min=0.8,  # cppo…: weight of the last position; 1: uniform weights.
    weight_order='linear',  # cppo…: linear or shuffled.
    budget=0.015,  # cppo…: delta_b per position; trm_max_mean: of the mean.
    tau_low=1.05,  # sapo: temperature for A < 0.
    tau_high=1.0,  # sapo: temperature for A > 0.
    soft_clip=0.2,  # spo: step of the ratio that brings the weight to 0.
    power_low=3.0,  # vespo: exponent of the sequence's ratio for A < 0.
    power_high=2.0,  # vespo: exponent of the sequence's ratio for A > 0.
    decay_low=2.0,  # vespo: decay rate in the sequence's ratio for A < 0.
    decay_high=3.0,  # vespo: decay rate in the sequence's ratio for A > 0.
    tau_entropy=0.1,  # estr: bound on the squared log-ratio over the entropy.
  )

  config.objective = dict(
    loss_form='score',  # score (eq. 23) or surrogate (eq. 12).
    importance='token',  # Weight: token, sequence, least_prefix, none.
    ratio_cap=float('inf'),  # C, upper truncation of pi/mu.
    ratio_floor=0.0,  # Lower truncation of pi/mu.
    centering='off',  # Score centering: off, topk, exact.
    centering_mask='token',  # M of the centre: token, candidate.
    aggregation='token_mean',  # Key of AGGREGATIONS.
    length_norm=1.0,  # Of sequence_mean_token_sum_norm, tokens; 0: the limit.
    kl_coefficient=0.0,  # Weight of KL(pi || reference).
    kl_estimator='k3',  # k1 or k3.
    entropy_coefficient=0.0,  # Weight of the entropy bonus.
    load_balance_coefficient=0.0,  # Weight of the load-balance loss (MoE).
  )

  config.optimizer = dict(
    learning_rate=5e-4,
    schedule='linear',  # constant, linear or cosine.
    final_fraction=0.05,  # Last learning rate over the peak.
    num_warmup_steps=0,  # Train steps of linear warmup from 0.
    b1=0.9,
    b2=0.99,
    epsilon=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,  # Global gradient norm; inf disables clipping.
    max_nonfinite=10,  # Consecutive skipped updates that stop the run.
  )

  config.learner = dict(
    num_minibatches=4,  # Optimizer updates per rollout batch.
    num_microbatches=0,  # Gradient-accumulation steps; 0: of 8,192 tokens each.
    length_buckets=1,  # Completion widths compiled; each part takes the least.
    share_prompt_prefix=True,  # Forward a prompt once for its G completions.
    router_replay=False,  # Train with the sampler's expert choices (R3).
    head_chunk_tokens=0,  # Tokens per LM-head chunk; 0: by the device.
  )

  config.sft = dict(
    num_steps=-1,  # SFT warm start; 0: none; -1: 150 of own tasks, else 0.
    batch_size=128,  # Demonstrations per step.
    learning_rate=2e-3,
    noise=0.1,  # Probability that a demonstrated digit is random.
    cache='',  # Folder of warm starts, shared by equal runs; '': no cache.
  )

  # Axis sizes; -1 takes the remaining devices. With several slices, the first
  # of data, fsdp and expert that their number divides spans the slices.
  config.mesh = dict(data=-1, fsdp=1, tensor=1, expert=1)

  config.evaluation = dict(
    every_n_steps=25,  # 0: only before and after training.
    source='data',  # Like data.source, or several: 'a, b'; data: held out.
    files='',  # Like data.files.
    fields=dict(  # Like data.fields; '' takes the value there.
      prompt='',
      answer='',
      options='',
      level='',
      source='',
      extra='',
    ),
    split='validation',
    reward='verifier',  # verifier (its first term) or model (rewards.model).
    truncated='zero',  # Like rewards.truncated: zero or score.
    drop_trained_on=False,  # Drop prompts that are in the training set.
    num_prompts=256,  # During training: size of a fixed sample.
    final_num_prompts=0,  # Before and after training; 0: the full split.
    num_samples=1,  # k of avg@k and pass@k.
    samples_per_pass=16,  # Samples per pass; bounds memory.
    temperature=1.0,
    top_p=1.0,
    greedy=True,  # Also decode greedily.
    num_resamples=1000,  # Bootstrap resamples of the problems, for intervals.
    confidence=0.95,  # Of the intervals.
  )

  config.checkpoints = dict(
    every_n_steps=50,
    keep=2,  # Latest checkpoints to keep, in addition to the best one.
    best_metric='evaluation/sampled_accuracy',
  )

  config.writers = dict(
    console_every_n_steps=50,
    samples_every_n_steps=50,  # Prompts and completions saved; 0: never.
    num_samples=4,  # Completions saved each time, spread over the batch.
    tensorboard=False,  # Event files in the workdir: dppo_jax[tensorboard].
    wandb=False,  # A run at Weights & Biases: dppo_jax[wandb].
    wandb_project='dppo_jax',
  )

  config.ledger = dict(every_n_steps=0)  # Steps recorded per token; 0: none.

  config.profile = dict(
    start_step=10,  # First profiled step, counted from 1.
    num_steps=0,  # 0: no profile.
  )

  config.compilation_cache = '~/.cache/dppo_jax/xla'  # '' disables it.

  return presets.apply(config.lock(), preset)
