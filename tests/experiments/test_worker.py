import json

from dppo_jax.configs import default
from tests.support import runs


def test_requests_are_answered_on_a_channel_of_their_own(tmp_path):
  broken = default.get_config().to_dict() | {'num_steps': -1}
  process = runs.start('worker', stdin=True)
  requests = [
    {'folder': str(tmp_path / name), 'config': config}
    for name, config in (('a', broken), ('b', {}))
  ]
  text = ''.join(json.dumps(request) + '\n' for request in requests)
  code, out, err = runs.end(process, text)
  assert code == 0, err
  replies = [json.loads(line) for line in out.splitlines()]
  assert 'num_steps: got -1' in replies[0]['error']
  assert 'written by another version' in replies[1]['error']
  assert 'num_steps: got -1' in err
