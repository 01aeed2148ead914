import pytest

from dppo_jax.runtime.model_validation import model_problems
from tests import runs

_EXPERTS = {'num_experts': 4, 'num_experts_per_tok': 2}


@pytest.mark.parametrize(
  ('model', 'messages'),
  [
    ({}, []),
    (_EXPERTS, []),
    (
      {**_EXPERTS, 'num_experts_per_tok': 5},
      ['model.num_experts_per_tok: got 5; at most model.num_experts=4.'],
    ),
    (
      {'mlp_only_layers': (-1, 1, 2)},
      [
        f'model.mlp_only_layers: got {layer}; numbers of layers, from 0 to 1.'
        for layer in (-1, 2)
      ],
    ),
    (
      {'num_kv_heads': 3, 'head_dim': 7},
      [
        'model.num_kv_heads: got 3; it must divide model.num_heads=4.',
        'model.head_dim: got 7; it must be even.',
      ],
    ),
  ],
)
def test_each_problem_is_a_sentence(model, messages):
  config = runs.config().to_dict()
  config['model'] |= model
  assert list(model_problems(config)) == messages
