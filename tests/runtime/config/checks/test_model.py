import pytest

from dppo_jax.runtime.config.checks.model import (
  lora_config,
  lora_problems,
  model_problems,
  target_of,
)
from tests.support import runs

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


@pytest.mark.parametrize('model', [{}, {**_EXPERTS, 'mlp_only_layers': (0, 1)}])
def test_dense_models_have_no_routers_to_set(model):
  config = runs.config(
    learner__router_replay=True, objective__load_balance_coefficient=0.5
  ).to_dict()
  config['model'] |= model
  size = config['model']['num_experts']
  why = f'model.num_experts={size} leaves no sparse layer'
  assert list(model_problems(config)) == [
    f'learner.router_replay: got True; {why} whose routes could be replayed;'
    ' set it to False.',
    f'objective.load_balance_coefficient: got 0.5; {why} to balance; set it'
    ' to 0.',
  ]
  config['model'] |= {**_EXPERTS, 'mlp_only_layers': (0,)}
  assert not list(model_problems(config))


@pytest.mark.parametrize(
  ('section', 'model', 'messages'),
  [
    ({}, {}, []),
    ({'rank': 2}, {}, []),
    ({'rank': 2, 'targets': ('q_proj', 'down_proj', 'up')}, {}, []),
    (
      {'pretrained': 'x'},
      {},
      [
        "lora.pretrained: got 'x', and lora.rank=0 trains no adapter; set the"
        ' rank of that one.'
      ],
    ),
    *(
      (
        {'rank': 2, 'targets': targets},
        {},
        [
          f'lora.targets: got {targets!r}; one or several of query, key, value,'
          ' output, gate, up, down, each once, in a tuple.'
        ],
      )
      for targets in [
        (),
        ('query', 'qeury'),
        'query',
        ('query', 'q_proj'),
        (1,),
      ]
    ),
    (
      {'rank': 2, 'targets': ('query', 'gate', 'up')},
      _EXPERTS,
      [
        'lora.targets: got gate, up; experts take no adapters, so a model with'
        ' experts takes query, key, value, output only.'
      ],
    ),
  ],
)
def test_each_problem_of_an_adapter_is_a_sentence(section, model, messages):
  config = runs.config().to_dict()
  config['lora'] |= section
  config['model'] |= model
  assert list(lora_problems(config)) == messages


def test_published_names_become_ours():
  section = runs.config(lora__rank=4, lora__targets=('o_proj', 'up')).lora
  found = lora_config(section)
  assert found is not None
  assert (found.rank, found.scale) == (4, 16.0)
  assert found.targets == ('output', 'up')
  assert target_of('query_proj') == 'query_proj'
  assert lora_config(runs.config().lora) is None
