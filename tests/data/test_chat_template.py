import re

import pytest

from dppo_jax.data import chat_template

_MESSAGES = ({'role': 'user', 'content': 'Hi {{ x }} <b>'},)
_SPECIAL = {'bos_token': '<s>', 'eos_token': '</s>'}


def _render(source, messages=_MESSAGES):
  return chat_template.compile_template(source, _SPECIAL, 'FILE')(messages)


def test_messages_and_special_tokens():
  source = (
    '{{ bos_token }}{% for m in messages %}\n  {% if true %}\n'
    "[{{ m['role'] }}]{{ m.content }}{{ eos_token }}\n  {% endif %}\n"
    '{% endfor %}\n{% if add_generation_prompt %}>{% endif %}'
  )
  assert _render(source) == '<s>[user]Hi {{ x }} <b></s>\n>'


def test_a_whole_chat_does_not_go_on():
  source = 'a{% if add_generation_prompt %}>{% endif %}'
  render = chat_template.compile_template(source, {}, 'FILE')
  assert (render(_MESSAGES, False), render(_MESSAGES, True)) == ('a', 'a>')


def test_what_published_templates_use():
  source = (
    '{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}'
    '{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}'
    '{{ {"é": 1} | tojson(indent=1) }}{{ tools is none }}{{ missing }}'
  )
  assert _render(source, _MESSAGES * 2) == (
    '{"role": "user", "content": "Hi {{ x }} <b>"}{\n "é": 1\n}True'
  )


def test_arguments_reach_the_template():
  source = '{% if enable_thinking is false %}no {% endif %}{{ effort }}'
  render = chat_template.compile_template(
    source, {}, 'FILE', {'enable_thinking': False, 'effort': 'low'}
  )
  assert render(_MESSAGES, True) == 'no low'
  tools = '{{ tools }}{{ documents is none }}'
  render = chat_template.compile_template(tools, {}, 'FILE', {'tools': 'x'})
  assert render(_MESSAGES, True) == 'xTrue'


@pytest.mark.parametrize(
  ('name', 'match'),
  [
    (
      'enable_thinkng',
      r"FILE does not read 'enable_thinkng'; did you mean 'enable_thinking'\?"
      ' Known: effort, enable_thinking',
    ),
    ('messages', "does not read 'messages'"),
    ('add_generation_prompt', "does not read 'add_generation_prompt'"),
    ('eos_token', "does not read 'eos_token'"),
    ('raise_exception', "does not read 'raise_exception'"),
  ],
)
def test_an_argument_that_changes_nothing_is_refused(name, match):
  source = (
    '{{ enable_thinking }}{{ effort }}{{ eos_token }}{{ messages }}'
    '{% if add_generation_prompt %}{{ raise_exception("x") }}{% endif %}'
  )
  with pytest.raises(
    ValueError, match=r'^data\.chat_template_arguments: .*' + match
  ):
    chat_template.compile_template(source, _SPECIAL, 'FILE', {name: 1})


def test_the_date_does_not_move():
  """A run that is resumed tomorrow has the prompts of today."""
  assert _render("{{ strftime_now('%d %b %Y') }}") == '26 Jul 2024'


@pytest.mark.parametrize(
  ('source', 'match'),
  [
    ("{{ raise_exception('no system turn') }}", 'no system turn'),
    ("{{ ''.__doc__.upper() }}", 'SecurityError'),
    ('{{ messages.append(1) }}', 'SecurityError'),
    ('{{ messages[0].__len__() }}', 'SecurityError'),
    ("{{ 'a' * 2000001 }}", 'SecurityError'),
    ("{{ 2000001 * 'a' }}", 'SecurityError'),
    ('{{ [0] * 2000001 }}', 'SecurityError'),
    ('{{ 2 ** 65 }}', 'SecurityError'),
    ('{% for i in range(100001) %}{% endfor %}', 'SecurityError'),
    (
      "{% for i in range(2001) %}{{ 'a' * 1000 }}{% endfor %}",
      'more than 2,000,000 characters',
    ),
    ('{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'RecursionError'),
    ('{{ 1 / 0 }}', 'ZeroDivisionError'),
    ("{% include 'x' %}", 'TypeError'),
  ],
)
def test_a_template_that_misbehaves_is_an_error(source, match):
  with pytest.raises(ValueError, match=r'data\.chat_template: FILE fails') as e:
    _render(source)
  assert match in str(e.value)


def test_what_is_just_within_the_bounds_is_written():
  source = "{% for i in range(99) %}{{ 'a' * 20202 }}{% endfor %}"
  assert len(_render(source)) == 99 * 20202
  assert _render("{{ ('a' * 2000000) | length }}") == '2000000'
  assert _render('{{ 2 ** 64 }}') == str(2**64)
  assert _render('{% for i in range(100000) %}{% endfor %}') == ''


@pytest.mark.parametrize(
  ('source', 'match'),
  [
    ('{% if %}', 'FILE is no valid template'),
    ('x' * (chat_template.MAX_TEMPLATE_LENGTH + 1), 'at most 200,000'),
  ],
)
def test_what_is_no_template_is_refused(source, match):
  with pytest.raises(ValueError, match=match):
    _render(source)


@pytest.mark.parametrize(
  ('end', 'expected'),
  [('</s>\n', ('\n[user]', '</s>\n>')), ('\n', ('\n[user]', '\n>'))],
)
def test_around_a_reply(end, expected):
  source = (
    '{% for m in messages %}[{{ m.role }}]{{ m.content }}'
    + end
    + '{% endfor %}'
    '{% if add_generation_prompt %}>{% endif %}'
  )
  render = chat_template.compile_template(source, {}, 'FILE')
  special = re.compile(re.escape('</s>'))
  assert chat_template.around_reply(render, special) == expected


def test_a_template_that_drops_answers_has_no_replies():
  render = chat_template.compile_template('{{ messages[0].content }}', {}, 'F')
  with pytest.raises(ValueError, match=r'^data\.chat_template: it does not'):
    chat_template.around_reply(render, re.compile('</s>'))
