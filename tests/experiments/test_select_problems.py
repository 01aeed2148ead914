"""The command that selects problems, as a process of its own."""

import json

from tests.support import runs


def _select(*arguments):
  return runs.end(runs.start('select_problems', *arguments))


def test_it_writes_what_a_run_can_read(tmp_path):
  source, out = tmp_path / 'rows.jsonl', tmp_path / 'out' / 'kept.jsonl'
  rows = [{'prompt': f'{i} =', 'answer': str(i)} for i in range(6)]
  source.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  arguments = [
    '--config=configs/tiny.py',
    f'--out={out}',
    '--num_samples=2',
    '--low=0',
    '--high=1',
    '--config.data.source=rows',
    f'--config.data.files={source}',
    '--config.evaluation.split=train',
    '--config.evaluation.num_prompts=4',
    '--config.sft.num_steps=0',
    '--config.compilation_cache=',
  ]
  code, said, err = _select(*arguments)
  assert code == 0, err
  assert said.startswith(f'Kept 6 of 6 problems: {out}\n')
  assert '4 of 6' in err
  kept = [json.loads(line) for line in out.read_text().splitlines()]
  # In the order of a fixed permutation, so that a part of them is a sample.
  found = [row['prompt'] for row in kept]
  assert sorted(found) == [row['prompt'] for row in rows] != found
  assert {row['num_samples'] for row in kept} == {2}
  code, _, err = _select(*arguments, '--num_samples=3')
  assert code == 1
  assert 'of another config' in err


def test_it_needs_a_file_to_write():
  code, _, err = _select('--config=configs/tiny.py')
  assert code == 1
  last = err.splitlines()[-1]
  assert last == 'error: --out: missing; name the file to write: --out=….'
