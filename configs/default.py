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

  config.seed = 0  # Every key and every data order derives from it.
  config.num_steps = 200  # Train steps; one rollout batch each.

  config.data = dict(
    source='task',  # task, or a row of SOURCES: gsm8k, math, …, rows.
    task='sort',  # Config of the builder: sort, addition, running_sum, …
    files='',  # Path or glob; '': data_dir/files/SOURCE.
    fields=dict(  # Of source rows, by path: 'outer.inner[0]'; '' for none.
      prompt='prompt',  # Or a template of several: '{Body} {Question}'.
      answer='answer',
      options='',  # Of a choice, listed below it; the answer is a letter.
      level='',
      source='',
      extra='*',  # Passed on to verifiers: *, or names, or 'name=path, …'.
    ),
    mixture=(),  # In place of a source: (source, files, weight[, fields]).
    data_dir='~/.cache/dppo_jax/data',  # Where prepared data sets live.
    tokenizer='',  # Folder with a tokenizer.json; '': the words of the task.
    prompt_template='{prompt}',  # The words around a problem.
    chat_template=False,  # Prompts are the user's turn of the model's chat.
    chat_template_arguments=(),  # Pairs: (('enable_thinking', False),).
    system_prompt='',  # The system's turn before it.
    dynamic_sampling='off',  # Groups of equal rewards: off, drop, resample.
    max_resampling=4,  # Further batches sampled a step, at most.
    num_prompts=64,  # N, prompts a train step.
    group_size=16,  # G, completions a prompt.
    max_prompt_length=9,  # P, tokens.
    overlong='filter',  # Prompts longer than that: filter or error.
    max_unverifiable=0.05,  # Share of references that no verifier may accept.
  )

  config.rewards = dict(
    verifier='exact_match',  # Rows of VERIFIERS: 'math + 0.1 * think_answer'.
    extraction='whole',  # Where answers are: 'boxed, hashes', first found.
    read_thoughts=False,  # An answer inside <think> counts where none follows.
    time_limit_s=2.0,  # Seconds of CPU time one verification may take.
    wall_limit_s=60.0,  # Seconds by the clock: for one that merely waits.
    memory_limit_mb=4096,  # MiB of address space of a verifier process.
    num_workers=0,  # Verifier processes; 0 runs trusted ones in process.
    truncated='zero',  # Cut by the limit: zero, score (by its text), mask.
    shaping='none',  # Rows of SHAPINGS, added in training: 'overlong'.
    overlong_cache=0,  # overlong: tokens below the limit it grows over.
    model='',  # Folder of a sequence classifier whose score is added.
    model_weight=1.0,  # Of that score.
    model_batch_size=16,  # Rows it scores at once.
    model_max_length=4096,  # Tokens; longer texts lose their beginning.
  )

  config.model = dict(
    pretrained='',  # Folder of a published model: shape and initial weights.
    vocab_size=0,  # V; 0: that of the tokenizer, or of `pretrained`.
    num_layers=2,
    d_model=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    d_ff=256,  # Width of the gated feed-forward layer.
    num_experts=0,  # Experts of a sparse layer; 0: every layer is dense.
    num_experts_per_tok=8,  # Experts that a token is given.
    moe_intermediate_size=128,  # Width of an expert.
    norm_topk_prob=True,  # The gates of a token sum to 1.
    decoder_sparse_step=1,  # Every so many layers one is sparse.
    mlp_only_layers=(),  # Layers that are dense in any case, from 0.
    rope_theta=10_000.0,  # Base of the rotary wavelengths.
    rope_scaling='none',  # none, linear or llama3.
    rope_factor=1.0,  # Context stretch of the two scalings.
    rope_low_frequency_factor=1.0,  # llama3 only.
    rope_high_frequency_factor=4.0,  # llama3 only.
    rope_original_length=8192,  # llama3 only; tokens.
    qk_norm=True,  # RMS-normalize queries and keys (Qwen3).
    qkv_bias=False,  # Bias of the projections (Qwen2).
    tied_head=True,  # The head is the embedding, transposed.
    norm_epsilon=1e-6,
    init_scale=0.02,  # Standard deviation of the initial weights.
    dtype='float32',  # Compute dtype: float32 or bfloat16.
    scan_unroll=1,  # Layers unrolled per scan step; divides num_layers.
    shard_sequence=False,  # Between layers columns are split over mesh.tensor.
    remat='none',  # Saved for the backward pass: none (all), dots, full.
  )

  config.lora = dict(  # An adapter trains, everything else is frozen.
    rank=0,  # r; 0 trains every weight instead.
    alpha=64.0,  # What the adapter adds is scaled by alpha / rank.
    targets=('query', 'key', 'value', 'output', 'gate', 'up', 'down'),
    pretrained='',  # Folder of an adapter to begin with, in PEFT's format.
    base_dtype='',  # Of what is frozen: float32, bfloat16; '': as published.
  )

  config.sampling = dict(
    max_completion_length=9,  # R, tokens, the end token included.
    stop_strings=(),  # Texts that end a completion, as its end token does.
    temperature=1.0,  # Divides the logits, here and in the trainer.
    top_k=20,  # K, log-probs recorded a token; 0 records none.
    precision='float32',  # Of the weights: float32 bfloat16 int8 fp8 int4.
    gather_fsdp=False,  # Gather the weights over mesh.fsdp once, not a token.
    lag=0,  # k: rollouts of a step are of the parameters k steps before.
    num_slots=0,  # Continuous batching: rows decoded together; 0: all.
  )

  config.advantages = dict(estimator='group_mean')  # Row of ADVANTAGES.

  config.trust_region = dict(
    rule='divergence',  # Row of TRUST_REGIONS.
    divergence='topk_tv',  # Row of DIVERGENCES, measured in every run.
    top_k_set='union',  # Top-K atoms: union (paper), replace_kth (its code).
    anchor='rollout',  # Whose policy the rule compares: rollout, recomputed.
    direction='away',  # Tokens it applies to: away (from the anchor), any.
    advantage_sign='both',  # Tokens it applies to: both, negative, positive.
    alpha_low=0.0,  # A < 0: tokens less likely than this are exempt.
    alpha_high=0.0,  # A > 0: tokens less likely than this are exempt.
    delta_low=0.2,  # Bound for A < 0, unit of the divergence.
    delta_high=0.2,  # Bound for A > 0.
    clip_low=0.2,  # Ratio clip below 1 - clip_low.
    clip_high=0.2,  # Ratio clip above 1 + clip_high.
    dual_clip=3.0,  # dual_clip: ratio bound for A < 0.
    w_min=0.8,  # cppo…: weight of the last position; 1 weighs all alike.
    weight_order='linear',  # cppo…: linear or shuffled.
    budget=0.015,  # cppo…: delta_b a position; trm_max_mean: of the mean.
    tau_low=1.05,  # sapo: temperature for A < 0.
    tau_high=1.0,  # sapo: temperature for A > 0.
  )

  config.objective = dict(
    loss_form='score',  # score (eq. 23) or surrogate (eq. 12).
    importance='token',  # Weight pi/mu: token, sequence, least_prefix.
    ratio_cap=float('inf'),  # C, truncation of pi/mu above.
    ratio_floor=0.0,  # Truncation of pi/mu below.
    aggregation='token_mean',  # Row of AGGREGATIONS.
    length_norm=1.0,  # Of sequence_mean_token_sum_norm, tokens; 0: the limit.
    kl_coefficient=0.0,  # Weight of KL(pi || reference).
    kl_estimator='k3',  # k1 or k3.
    entropy_coefficient=0.0,  # Weight of the entropy bonus.
    load_balance_coefficient=0.0,  # Weight of the experts' load balance.
  )

  config.optimizer = dict(
    learning_rate=5e-4,
    schedule='linear',  # constant, linear or cosine.
    final_fraction=0.05,  # Last learning rate over the first.
    num_warmup_steps=0,  # Train steps of linear increase from 0.
    b1=0.9,
    b2=0.99,
    epsilon=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,  # Global gradient norm; inf switches it off.
    max_nonfinite=10,  # Skipped updates in a row that stop the run.
  )

  config.learner = dict(
    num_minibatches=4,  # Optimizer updates a rollout batch.
    num_microbatches=1,  # Gradient accumulation within an update.
    share_prompt_prefix=True,  # Forward a prompt once for its G completions.
    router_replay=False,  # Experts in training: those that the sampler took.
    head_chunk_tokens=0,  # Tokens per LM-head chunk; 0: by the device.
  )

  config.sft = dict(
    num_steps=150,  # Warm start; 0 switches it off.
    batch_size=128,  # Demonstrations a step.
    learning_rate=2e-3,
    noise=0.1,  # Share of demonstration digits replaced at random.
    cache='',  # Folder of warm starts that runs alike share; '' keeps none.
  )

  # Sizes of the axes; -1 takes what is left. Of several slices, the first of
  # data, fsdp and expert that their number divides crosses the network.
  config.mesh = dict(data=-1, fsdp=1, tensor=1, expert=1)

  config.evaluation = dict(
    every_n_steps=25,  # 0: only before and after training.
    source='data',  # As data.source, or several: 'a, b'; data: its held-out.
    files='',  # As data.files.
    fields=dict(  # As data.fields, which '' stands for.
      prompt='',
      answer='',
      options='',
      level='',
      source='',
      extra='',
    ),
    split='validation',
    reward='verifier',  # verifier (its first term) or model (rewards.model).
    truncated='zero',  # As rewards.truncated: zero or score.
    drop_trained_on=False,  # Leaves out prompts that the run trains on.
    num_prompts=256,  # During training: a fixed sample of so many.
    final_num_prompts=0,  # Before and after training; 0: the whole split.
    num_samples=1,  # k of avg@k and pass@k.
    samples_per_pass=16,  # Samples drawn at once; bounds memory.
    temperature=1.0,
    top_p=1.0,
    greedy=True,  # Also decode greedily.
    num_resamples=1000,  # Of the problems, for intervals by bootstrap.
    confidence=0.95,  # Of the intervals.
  )

  config.checkpoints = dict(
    every_n_steps=50,
    keep=2,  # Latest ones kept; the best one is kept beside them.
    best_metric='evaluation/sampled_accuracy',
  )

  config.writers = dict(
    console_every_n_steps=50,
    samples_every_n_steps=50,  # Prompts and completions saved; 0: never.
    num_samples=4,  # Rows saved each time, spread over the batch.
    tensorboard=True,
  )

  config.ledger = dict(every_n_steps=0)  # Steps whose tokens are kept; 0: none.

  config.profile = dict(start_step=0, num_steps=0)  # 0 steps: no profile.

  config.compilation_cache = '~/.cache/dppo_jax/xla'  # '' switches it off.

  return presets.apply(config.lock(), preset)
