"""Problems among the keys of sections `model` and `lora`."""

from collections.abc import Iterator, Mapping
from typing import Any

from dppo_jax.models.lora import ATTENTION_TARGETS, TARGETS, LoraConfig


def model_problems(config: Mapping[str, Any]) -> Iterator[str]:
  """Problems of section `model`, whose values are in their ranges.

  Args:
    config: plain nested dicts with the keys of configs/default.py.

  Yields:
    Path, what was got and what is allowed, a sentence each.
  """
  model = config['model']
  if model['num_heads'] % model['num_kv_heads']:
    yield (
      f'model.num_kv_heads: got {model["num_kv_heads"]}; it must divide'
      f' model.num_heads={model["num_heads"]}.'
    )
  if model['num_layers'] % model['scan_unroll']:
    yield (
      f'model.scan_unroll: got {model["scan_unroll"]}; it must divide'
      f' model.num_layers={model["num_layers"]}.'
    )
  if model['head_dim'] % 2:
    yield f'model.head_dim: got {model["head_dim"]}; it must be even.'
  experts = model['num_experts']
  if experts and model['num_experts_per_tok'] > experts:
    yield (
      f'model.num_experts_per_tok: got {model["num_experts_per_tok"]}; at most'
      f' model.num_experts={experts}.'
    )
  yield from _router_problems(config)
  for layer in model['mlp_only_layers']:
    if not isinstance(layer, int) or not 0 <= layer < model['num_layers']:
      yield (
        f'model.mlp_only_layers: got {layer!r}; numbers of layers, from 0 to'
        f' {model["num_layers"] - 1}.'
      )
  low = model['rope_low_frequency_factor']
  high = model['rope_high_frequency_factor']
  if model['rope_scaling'] == 'llama3' and not 0 < low < high:
    yield (
      f'model.rope_low_frequency_factor: got {low}; it must be above 0 and'
      f' below model.rope_high_frequency_factor={high}.'
    )


def _router_problems(config: Mapping[str, Any]) -> Iterator[str]:
  """Settings of routers that the model has not; dense layers have none."""
  model = config['model']
  layers = range(model['num_layers'])
  dense = set(model['mlp_only_layers'])
  step = model['decoder_sparse_step']
  if model['num_experts'] and any(
    (layer + 1) % step == 0 and layer not in dense for layer in layers
  ):
    return
  why = f'model.num_experts={model["num_experts"]} leaves no sparse layer'
  if config['learner']['router_replay']:
    yield (
      f'learner.router_replay: got True; {why} whose routes could be replayed;'
      ' set it to False.'
    )
  coefficient = config['objective']['load_balance_coefficient']
  if coefficient:
    yield (
      f'objective.load_balance_coefficient: got {coefficient}; {why} to'
      ' balance; set it to 0.'
    )


def target_of(name: str) -> str:
  """Our name of a projection, also by its published one ('q_proj').

  >>> target_of('q_proj'), target_of('query')
  ('query', 'query')
  """
  ours = {published: target for target, (published, _) in TARGETS.items()}
  return ours[name] if name in ours else name


def lora_config(section: Mapping[str, Any]) -> LoraConfig | None:
  """The adapter of a checked section `lora`; None where its rank is 0."""
  if not section['rank']:
    return None
  return LoraConfig(
    rank=section['rank'],
    alpha=section['alpha'],
    targets=tuple(target_of(name) for name in section['targets']),
  )


def lora_problems(config: Mapping[str, Any]) -> Iterator[str]:
  """Problems of section `lora`; arguments as of `model_problems`."""
  section, model = config['lora'], config['model']
  if not section['rank']:
    if section['pretrained']:
      yield (
        f'lora.pretrained: got {section["pretrained"]!r}, and lora.rank=0'
        ' trains no adapter; set the rank of that one.'
      )
    return
  given = section['targets']
  targets = [target_of(str(name)) for name in given]
  unknown = [
    name
    for name, target in zip(given, targets, strict=True)
    if target not in TARGETS
  ]
  twice = len(set(targets)) < len(targets)
  if isinstance(given, str) or unknown or twice or not targets:
    yield (
      f'lora.targets: got {given!r}; one or several of'
      f' {", ".join(TARGETS)}, each once, in a tuple.'
    )
    return
  wide = [name for name in targets if name not in ATTENTION_TARGETS]
  if wide and model['num_experts']:
    yield (
      f'lora.targets: got {", ".join(wide)}; experts take no adapters, so a'
      f' model with experts takes {", ".join(ATTENTION_TARGETS)} only.'
    )
