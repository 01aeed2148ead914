"""Keys of published models' files that are read, ignored or refused.

One table per file. Keys in no table are reported at the start of a run: they
may change what the model computes, and are not read.
"""

from collections.abc import Collection, Iterator, Mapping
import dataclasses
import pathlib
from typing import Any

from dppo_jax.gguf_files import as_folder
from dppo_jax.runtime.hub import json_files

TOKENIZER_SETTINGS = 'tokenizer_config.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Keys of one file.

  Attributes:
    read: keys that are followed.
    only: key -> supported values; others are refused. An absent key counts as
      the first value.
    ignored: keys that do not affect what is computed here, or are configured
      elsewhere.
    endings: suffixes of further ignored keys.
  """

  read: Collection[str]
  only: Mapping[str, tuple[Any, ...]]
  ignored: Collection[str]
  endings: tuple[str, ...] = ()

  def problems(self, raw: Mapping[str, Any]) -> Iterator[str]:
    """Problems that prevent a file from being read."""
    for key, allowed in self.only.items():
      # 0 is not False, nor 1 True.
      if key in raw and not any(_same(raw[key], value) for value in allowed):
        known = ' or '.join(map(repr, allowed))
        yield f'{key}: unsupported {raw[key]!r}; {known} can be read.'

  def unknown(self, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Keys in no list, with their values, if not empty."""
    known = {*self.read, *self.only, *self.ignored}
    return {
      key: value
      for key, value in raw.items()
      if key not in known
      and not key.endswith(self.endings)
      and value not in (None, False, [], {}, '')
    }


def _same(one: Any, other: Any) -> bool:
  return one == other and isinstance(one, bool) == isinstance(other, bool)


# Generation settings of transformers. Here section `sampling` has them, and
# training needs the model's distribution, without penalties or forced tokens.
_GENERATION = (
  *('max_length', 'max_new_tokens', 'min_length', 'min_new_tokens'),
  *('early_stopping', 'max_time', 'stop_strings', 'do_sample', 'num_beams'),
  *('num_beam_groups', 'penalty_alpha', 'use_cache', 'cache_implementation'),
  *('cache_config', 'max_cache_len', 'temperature', 'top_k', 'top_p', 'min_p'),
  *('top_h', 'typical_p', 'epsilon_cutoff', 'eta_cutoff', 'use_mtp'),
  *('diversity_penalty', 'repetition_penalty', 'encoder_repetition_penalty'),
  *('length_penalty', 'no_repeat_ngram_size', 'encoder_no_repeat_ngram_size'),
  *('bad_words_ids', 'force_words_ids', 'renormalize_logits', 'constraints'),
  *('forced_bos_token_id', 'forced_eos_token_id', 'remove_invalid_values'),
  *('exponential_decay_length_penalty', 'suppress_tokens', 'sequence_bias'),
  *('begin_suppress_tokens', 'token_healing', 'guidance_scale', 'low_memory'),
  *('watermarking_config', 'num_return_sequences', 'output_attentions'),
  *('output_hidden_states', 'output_scores', 'output_logits', 'dola_layers'),
  *('return_dict_in_generate', 'decoder_start_token_id', 'is_assistant'),
  *('num_assistant_tokens', 'num_assistant_tokens_schedule', 'chat_format'),
  *('assistant_confidence_threshold', 'prompt_lookup_num_tokens'),
  *('max_matching_ngram_size', 'assistant_early_exit', 'assistant_lookbehind'),
  *('target_lookbehind', 'assistant_ensemble_weight', 'speculation_type'),
  *('compile_config', 'disable_compile', 'continuous_batching_config'),
  *('prefill_chunk_size', 'max_window_size', '_from_model_config'),
)
_ABOUT = (
  *('transformers_version', '_name_or_path', 'name_or_path', '_commit_hash'),
  *('unsloth_fixed', 'unsloth_version', 'transformers.js_config'),
)
GENERATION = Table(
  read=('eos_token_id',),
  only={},
  # Padding and the beginning of prompts follow the tokenizer.
  ignored=('bos_token_id', 'pad_token_id', *_GENERATION, *_ABOUT),
)

_EXPERTS = (
  *('num_experts', 'num_local_experts', 'num_experts_per_tok'),
  *('moe_intermediate_size', 'norm_topk_prob', 'decoder_sparse_step'),
  'mlp_only_layers',
)
_DENSE = Table(
  read=(
    *('architectures', 'vocab_size', 'num_hidden_layers', 'hidden_size'),
    *('num_attention_heads', 'num_key_value_heads', 'head_dim'),
    *('intermediate_size', 'rope_parameters', 'rope_scaling', 'rope_theta'),
    *('tie_word_embeddings', 'rms_norm_eps', 'initializer_range', 'dtype'),
    *('torch_dtype', 'layer_types', 'eos_token_id', 'pad_token_id'),
  ),
  only={
    'hidden_act': ('silu', None),
    'attention_bias': (False, None),
    'mlp_bias': (False, None),
    'use_sliding_window': (False, None),
    'partial_rotary_factor': (1.0, None),
    'is_encoder_decoder': (False, None),
    'add_cross_attention': (False, None),
    'is_decoder': (False, True, None),
    'use_bidirectional_attention': (False, None),
    'is_causal': (True, None),
  },
  ignored=(
    'model_type',  # `architectures` names the class.
    'bos_token_id',
    # Regularization of other trainers.
    *('attention_dropout', 'hidden_dropout', 'resid_pdrop', 'embd_pdrop'),
    # Without effect, since use_sliding_window is off.
    *('sliding_window', 'max_window_layers'),
    # Rotary embeddings need no maximum; sections data and sampling set lengths.
    'max_position_embeddings',
    'original_max_position_embeddings',
    'pretraining_tp',  # Splits a matrix product.
    # The dtypes of the tensors tell whether weights are quantized.
    'quantization_config',
    # Labels of classification heads.
    *('id2label', 'label2id', 'num_labels', 'problem_type', 'classifier_bias'),
    *('_num_labels', 'return_dict', 'use_return_dict', 'output_past'),
    *('torchscript', 'use_bfloat16', 'pruned_heads', 'tf_legacy_loss'),
    *('chunk_size_feed_forward', 'prefix', 'task_specific_params'),
    *('tie_encoder_decoder', 'cross_attention_hidden_size', 'sep_token_id'),
    *('finetuning_task', 'tokenizer_class', 'attn_implementation'),
    *('_attn_implementation', '_attn_implementation_autoset'),
    *('_flash_attn_2_enabled', '_experts_implementation'),
    *_GENERATION,
    *_ABOUT,
  ),
)
# Table of config.json by whether the architecture has experts.
MODEL = {
  False: _DENSE,
  True: dataclasses.replace(
    _DENSE,
    read=(*_DENSE.read, *_EXPERTS),
    # Section `objective` sets load balancing.
    ignored=(*_DENSE.ignored, 'router_aux_loss_coef', 'output_router_logits'),
  ),
}
ROPE = Table(
  read=(
    *('rope_type', 'type', 'rope_theta', 'factor', 'low_freq_factor'),
    *('high_freq_factor', 'original_max_position_embeddings'),
  ),
  only={'partial_rotary_factor': (1.0, None)},
  ignored=(),
)

ADAPTER = Table(
  read=('r', 'lora_alpha', 'target_modules', 'use_rslora'),
  only={
    'peft_type': ('LORA',),
    'task_type': ('CAUSAL_LM', None),
    # Other values subtract the initial A and B from the base.
    'init_lora_weights': (
      *(True, False, None),
      *('gaussian', 'eva', 'orthogonal', 'mica'),
    ),
    'bias': ('none', None),
    'lora_bias': (False, None),
    'fan_in_fan_out': (False, None),
    'use_dora': (False, None),
    'use_qalora': (False, None),
    'use_bdlora': (None,),
    'rank_pattern': ({}, None),
    'alpha_pattern': ({}, None),
    'exclude_modules': (None, []),
    'layers_to_transform': (None, []),
    'layer_replication': (None, []),
    'target_parameters': (None, []),
    'modules_to_save': (None, []),
    'trainable_token_indices': (None, [], {}),
    'alora_invocation_tokens': (None, []),
    'arrow_config': (None,),
    'kasa_config': (None,),
    'monteclora_config': (None,),
    'velora_config': (None,),
  },
  ignored=(
    # Section `model` names the base; tensors are compared with it.
    *('base_model_name_or_path', 'revision', 'auto_mapping', 'peft_version'),
    *('inference_mode', 'runtime_config', 'layers_pattern'),
    'lora_dropout',  # Not supported in training; no effect on the weights.
    # Settings of the initialization that `init_lora_weights` names.
    *('loftq_config', 'eva_config', 'corda_config', 'lora_ga_config'),
    *('megatron_config', 'megatron_core', 'qalora_group_size'),
    'ensure_weight_tying',  # Of modules_to_save.
  ),
)

TOKENIZER = Table(
  # Every special token is passed to the chat template by its name.
  read=(
    *('chat_template', 'additional_special_tokens', 'extra_special_tokens'),
    *('added_tokens_decoder', 'add_bos_token', 'add_eos_token'),
  ),
  only={'split_special_tokens': (False, None)},
  ignored=(
    # Long prompts are counted, never truncated; padding is on the left.
    *('model_max_length', 'padding_side', 'truncation_side', 'max_length'),
    *('stride', 'truncation_strategy', 'pad_to_multiple_of', 'padding'),
    *('pad_token_type_id', 'model_input_names'),
    # Texts are verified as written, with their spaces.
    *('clean_up_tokenization_spaces', 'spaces_between_special_tokens'),
    # Classes and files of another library; tokenizer.json is complete.
    *('tokenizer_class', 'processor_class', 'auto_map', 'legacy', 'backend'),
    *('from_slow', 'sp_model_kwargs', 'errors', 'use_fast', 'is_local'),
    *('add_prefix_space', 'tokenizer_file', 'vocab_file', 'merges_file'),
    *('use_default_system_prompt', 'local_files_only', 'response_schema'),
    *('special_tokens_map_file', 'model_specific_special_tokens'),
    *('fast_tokenizer', 'trust_remote_code', 'fix_mistral_regex'),
    *_ABOUT,
  ),
  endings=('_token', '_tokens_map'),
)


def check_tokenizer(folder: str) -> None:
  """Raises on unsupported settings of a tokenizer.

  Args:
    folder: of the tokenizer; '' for the words of a task.

  Raises:
    ValueError: the settings are damaged or unsupported.
  """
  path = pathlib.Path(folder).expanduser() / TOKENIZER_SETTINGS
  if not folder or not as_folder.is_file(path):
    return
  problems = list(TOKENIZER.problems(json_files.read_json(path)))
  if problems:
    raise ValueError(f'data.tokenizer: {path}: {" ".join(problems)}')
