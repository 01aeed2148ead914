import json
import pathlib
import shutil

import numpy as np
import pytest

from dppo_jax.data import hf_tokenizer, stop_strings

_FOLDER = pathlib.Path(__file__).parents[1] / 'testdata' / 'tokenizer'
_SIZE, _PAD, _BEGIN, _ENDS = 320, 0, 1, (3, 4)


def _open(folder=_FOLDER, **overrides):
  settings = dict(
    prompt_template='{prompt}', use_chat_template=False, system_prompt=''
  )
  return hf_tokenizer.HFTokenizer(folder, **{**settings, **overrides})


@pytest.fixture
def copy(tmp_path):
  """A copy of the folder, and a function that rewrites one of its files."""
  folder = shutil.copytree(_FOLDER, tmp_path / 'model')

  def write(name, content):
    path = folder / name
    if content is None:
      path.unlink()
    else:
      text = content if isinstance(content, str) else json.dumps(content)
      path.write_text(text)
    return folder

  return write


def test_ids_and_ends():
  tokenizer = _open()
  assert tokenizer.vocab_size == _SIZE
  assert tokenizer.pad_id == _PAD
  assert tokenizer.eos_ids == _ENDS


@pytest.mark.parametrize('text', ['The answer is 12.', ' a\n\tb ', 'é€😀', ''])
def test_round_trip(text):
  tokenizer = _open()
  ids = tokenizer.encode(text)
  assert _BEGIN not in ids
  assert tokenizer.decode(ids) == text


def test_decoding_leaves_out_what_is_no_text():
  tokenizer = _open()
  ids = tokenizer.encode('12')
  full = [_BEGIN, *ids, _ENDS[1], _PAD]
  assert tokenizer.decode(np.asarray(full, np.int32)) == '12'
  # Rows of the model that the tokenizer does not know.
  assert tokenizer.decode([*ids, _SIZE + 7]) == '12'
  rows = np.asarray([full, full])
  mask = np.zeros(rows.shape, bool)
  mask[0] = True
  assert tokenizer.decode_batch(rows, mask) == ['12', '']


def test_half_a_character_is_a_sign():
  tokenizer = _open()
  assert tokenizer.decode(tokenizer.encode('é')[:1]) == '\ufffd'


def test_a_prompt_without_a_chat_begins_as_the_model_does():
  tokenizer = _open(prompt_template='Q: {prompt} {x}')
  ids = tokenizer.encode_prompt('{1}')
  assert ids == [_BEGIN, *tokenizer.encode('Q: {1} {x}')]


def test_a_prompt_of_a_chat():
  tokenizer = _open(
    use_chat_template=True,
    system_prompt='Be brief.',
    prompt_template='{prompt}?',
  )
  ids = tokenizer.encode_prompt('1 + 1')
  expected = (
    '<|begin|>Be brief.\n<|im_start|>user\n1 + 1?<|im_end|>\n'
    '<|im_start|>assistant\n'
  )
  assert ids == tokenizer.encode(expected)
  assert ids[0] == _BEGIN
  assert _ENDS[0] in ids
  without = _open(use_chat_template=True).encode_prompt('1')
  assert without[0] != _BEGIN


def test_a_chat_with_its_answer(copy):
  source = (
    '{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}:'
    '{{ m.content }}<|im_end|>{% endfor %}'
    '{% if add_generation_prompt %}?{% endif %}'
  )
  folder = copy('chat_template.jinja', source)
  tokenizer = _open(folder, use_chat_template=True)
  # What a turn spells like a mark is text, of the user's turn as well.
  ids = tokenizer.encode_answered('1 + 1<|pad|>', '2<|im_end|>{{ 3 }}')
  assert ids == tokenizer.encode(
    '<|begin|><|im_start|>user:1 + 1 <|im_end|>'
    '<|im_start|>assistant:2 {{ 3 }}<|im_end|>'
  )
  with pytest.raises(ValueError, match='use_chat_template=True'):
    _open(folder).encode_answered('1', '2')


def test_arguments_of_the_template(copy):
  source = '{{ "quiet" if enable_thinking is false else "loud" }}'
  folder = copy('chat_template.jinja', source)

  def shown(**arguments):
    tokenizer = _open(
      folder, use_chat_template=True, chat_template_arguments=arguments
    )
    return tokenizer.render_prompt('1')

  assert shown() == 'loud'
  assert shown(enable_thinking=False) == 'quiet'
  with pytest.raises(ValueError, match="does not read 'thinking'"):
    shown(thinking=False)
  with pytest.raises(ValueError, match='need a chat template'):
    _open(folder, chat_template_arguments={'enable_thinking': False})


def test_special_tokens_in_a_text_are_found():
  tokenizer = _open()
  assert tokenizer.find_special('1 <| im_end |>') == []
  found = tokenizer.find_special('1<|im_end|> 2 <|im_start|>system')
  assert found == ['<|im_end|>', '<|im_start|>']
  # For they are read as the tokens.
  assert _ENDS[0] in tokenizer.encode_prompt('1<|im_end|>')


@pytest.mark.parametrize(
  ('written', 'behind', 'end'),
  [
    ('{{ m.content }}<|im_end|>\n', '<|im_end|>\n', _ENDS[0]),
    ('{{ m.content }}\n<|im_end|>', '\n<|im_end|>', _ENDS[0]),
    ('{{ m.content }}##', '##', None),
    ('{{ m.role }}', '', None),
  ],
)
def test_what_ends_a_turn(copy, written, behind, end):
  source = f'{{% for m in messages %}}{written}{{% endfor %}}'
  folder = copy('chat_template.jinja', source)
  tokenizer = _open(folder, use_chat_template=True)
  if end is not None:
    assert tokenizer.special_ids['<|im_end|>'] == end
  assert tokenizer.turn_end() == (behind, end)
  with pytest.raises(ValueError, match='with a chat template'):
    _open(folder).turn_end()


def test_a_template_in_its_own_file_goes_first(copy):
  folder = copy('chat_template.jinja', '{{ bos_token }}{{ messages | length }}')
  tokenizer = _open(folder, use_chat_template=True)
  assert tokenizer.encode_prompt('x') == [_BEGIN, *tokenizer.encode('1')]


def test_one_of_several_templates(copy):
  named = [
    {'name': 'tool_use', 'template': 'no'},
    {'name': 'default', 'template': 'yes'},
  ]
  folder = copy('tokenizer_config.json', {'chat_template': named})
  tokenizer = _open(folder, use_chat_template=True)
  assert tokenizer.encode_prompt('x') == tokenizer.encode('yes')


def test_where_the_ends_are_found(copy):
  assert _open(copy('generation_config.json', {'eos_token_id': 4})).eos_ids == (
    4,
  )
  copy('config.json', {'eos_token_id': [4, 3, 4]})
  folder = copy('generation_config.json', None)
  assert _open(folder).eos_ids == (4, 3)
  copy('config.json', {'eos_token_id': None})
  assert _open(folder).eos_ids == (3,)
  copy('special_tokens_map.json', {'eos_token': {'content': '<|end|>'}})
  copy('tokenizer_config.json', {})
  tokenizer = _open(folder)
  assert tokenizer.eos_ids == (4,)
  assert tokenizer.pad_id == 4  # This one has no pad of its own.


@pytest.mark.parametrize(
  ('name', 'content', 'match'),
  [
    ('tokenizer.json', None, r'no file .*tokenizer\.json'),
    ('tokenizer.json', '{"version": "1.0"', r'cannot read .*tokenizer\.json'),
    ('tokenizer_config.json', '{', r'cannot read .*tokenizer_config\.json'),
    ('tokenizer_config.json', '[]', 'a list, not an object'),
    ('tokenizer_config.json', '[' * 99, 'cannot read .*Expecting'),
    (
      'tokenizer_config.json',
      f'{{"a": {"[" * 99}{"]" * 99}}}',
      'cannot read .*more than 64 lists',
    ),
    ('generation_config.json', 'null', 'holds null, not an object'),
    ('generation_config.json', {'eos_token_id': 320}, 'ids up to 319'),
    ('generation_config.json', {'eos_token_id': 'x'}, "eos_token_id='x'"),
    ('generation_config.json', {'eos_token_id': [-1]}, 'whole numbers'),
  ],
)
def test_damaged_folders_are_refused(copy, name, content, match):
  folder = copy(name, content)
  with pytest.raises(ValueError, match=r'^data\.tokenizer: .*' + match):
    _open(folder)


def test_no_end_no_template(copy):
  copy('generation_config.json', None)
  folder = copy('tokenizer_config.json', {})
  with pytest.raises(ValueError, match='defines the end token'):
    _open(folder)
  copy('generation_config.json', {'eos_token_id': 3})
  with pytest.raises(ValueError, match=r'^data\.chat_template: neither'):
    _open(folder, use_chat_template=True)


def test_a_system_prompt_needs_a_chat():
  with pytest.raises(ValueError, match=r'^data\.system_prompt: needs a chat'):
    _open(system_prompt='Be brief.')


def test_a_stop_string_that_ends_within_a_token_of_bytes():
  tokenizer = _open()
  ids = tokenizer.encode('Add é and stop. What is the answer? <answer>12')
  text = tokenizer.decode(ids)
  for stop in ('and st', 'e a', '>1', 'é'):
    found = stop_strings.find_stop(ids, text, [stop], tokenizer.decode)
    assert found.text == text[: text.index(stop) + len(stop)]
    kept = tokenizer.decode(ids[: found.num_tokens])
    assert stop in kept
    assert stop not in tokenizer.decode(ids[: found.num_tokens - 1])
  # 'is' and its space are one token here, and the stop string ends inside.
  found = stop_strings.find_stop(ids, text, ['What i'], tokenizer.decode)
  kept = tokenizer.decode(ids[: found.num_tokens])
  assert len(kept) > len(found.text)


_TURNS = (
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}'
  '<|im_end|>\n{% endfor %}{% if add_generation_prompt %}'
  '<|im_start|>assistant\n{% endif %}'
)


def _with_turns(copy):
  return _open(copy('chat_template.jinja', _TURNS), use_chat_template=True)


def test_a_reply_is_a_turn_of_the_user(copy):
  tokenizer = _with_turns(copy)
  ids, cut = tokenizer.encode_reply('It is 12.', 40)
  assert not cut
  assert tokenizer.decode_raw(ids) == (
    '\n<|im_start|>user\nIt is 12.<|im_end|>\n<|im_start|>assistant\n'
  )
  # Together with a turn that was sampled, what the template itself renders.
  said = [*tokenizer.encode('Eight.'), tokenizer.special_ids['<|im_end|>']]
  whole = [*tokenizer.encode_prompt('Six and six?'), *said, *ids]
  assert tokenizer.decode_raw(whole) == (
    '<|im_start|>user\nSix and six?<|im_end|>\n<|im_start|>assistant\n'
    'Eight.<|im_end|>\n<|im_start|>user\nIt is 12.<|im_end|>\n'
    '<|im_start|>assistant\n'
  )


@pytest.mark.parametrize('chat', [True, False])
def test_control_tokens_in_a_reply_are_text(copy, chat):
  tokenizer = _with_turns(copy) if chat else _open()
  special = set(tokenizer.special_ids.values())
  around, _ = tokenizer.encode_reply('', 0)
  for text in tokenizer.special_ids:
    hostile = f'a{text}b {text}'
    ids, _ = tokenizer.encode_reply(hostile, 200)
    assert sum(i in special for i in ids) == sum(i in special for i in around)
    assert hostile in tokenizer.decode_raw(ids)
  # Prompts and templates still have theirs.
  assert tokenizer.encode('<|im_end|>') == [tokenizer.special_ids['<|im_end|>']]


def test_a_long_reply_is_cut_between_the_template(copy):
  tokenizer = _with_turns(copy)
  around, _ = tokenizer.encode_reply('', 0)
  ids, cut = tokenizer.encode_reply('12 ' * 10**6, 5)
  assert cut
  assert len(ids) == len(around) + 5
  assert tokenizer.decode_raw(ids).endswith('<|im_start|>assistant\n')


def test_a_template_without_answers_is_refused():
  tokenizer = _open(use_chat_template=True)
  with pytest.raises(ValueError, match=r'^data\.chat_template: it does not'):
    tokenizer.encode_reply('12', 5)
