"""What the keys of section `model` must be to each other."""

from collections.abc import Iterator, Mapping
from typing import Any


def model_problems(config: Mapping[str, Any]) -> Iterator[str]:
  """What is wrong with section `model`, whose values are in their ranges.

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
  if model['num_layers'] % model['layers_a_loop']:
    yield (
      f'model.layers_a_loop: got {model["layers_a_loop"]}; it must divide'
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
