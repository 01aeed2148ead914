"""Our own guards, tried with what loops, grows or nests without end."""

import jinja2
import pytest

from dppo_jax.data import template_limits
from dppo_jax.data.template_limits import BoundedSandbox


def _render(source, **values):
  environment = BoundedSandbox()
  template = environment.from_string(source)
  environment.begin()
  return template.render(**values)


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    ("{{ 'a' ~ 1 ~ none }}", 'a1None'),
    ("{{ ('a' ~ 'b') | upper ~ ['c' ~ 'd'][0] }}", 'ABcd'),
    ('{% for i in range(3) %}{{ loop.index ~ "," }}{% endfor %}', '1,2,3,'),
    ('{% for i in [] %}{% else %}none{% endfor %}', 'none'),
    ('{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(1) ~ f(x=2) }}', '<1><2>'),
    (
      '{% for i in [1, [2, [3]]] recursive %}'
      '{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}'
      '{% endfor %}',
      '1(2(3))',
    ),
    (
      '{% macro f() %}[{{ caller() }}]{% endmacro %}'
      '{% call f() %}x{% endcall %}',
      '[x]',
    ),
    ("{{ 'a-b'.split('-') | join('+') }}", 'a+b'),
    ('{% set n = namespace(s="") %}{% set n.s = n.s + "x" %}{{ n.s }}', 'x'),
    ('{{ [1, 2] | map("string") | list | length }}', '2'),
    ('{{ 7 % 4 }}', '3'),
  ],
)
def test_what_templates_do_is_done(source, expected):
  assert _render(source) == expected


_DOUBLE = "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}"


@pytest.mark.parametrize(
  'source',
  [
    '{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}'
    '{% endfor %}',
    _DOUBLE + '{% set n.s = n.s + n.s %}{% endfor %}',
    _DOUBLE + '{% set n.s = n.s ~ n.s %}{% endfor %}',
    _DOUBLE + "{% set n.s = n.s | replace('a', n.s) %}{% endfor %}",
    _DOUBLE + "{% set n.s = n.s.replace('a', n.s) %}{% endfor %}",
    _DOUBLE + '{% set n.s = n.s | list | join(n.s) %}{% endfor %}',
    _DOUBLE + '{% set n.s = n.s.join(n.s) %}{% endfor %}',
    _DOUBLE + "{% set n.s = '%s%s' | format(n.s, n.s) %}{% endfor %}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%s' | indent(1000000000) }}",
    '{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}'
    '{% endmacro %}{{ f(90) }}',
    '{% set n = namespace(i=3) %}{% for i in range(60) %}'
    '{% set n.i = n.i * n.i %}{% endfor %}',
    '{{ lipsum(n=100000) }}',
  ],
)
def test_what_grows_or_runs_without_end_is_refused(source, monkeypatch):
  monkeypatch.setattr(template_limits, 'MAX_WORK', 200_000)
  with pytest.raises(jinja2.TemplateError):
    _render(source)


def test_the_budget_is_that_of_one_run(monkeypatch):
  monkeypatch.setattr(template_limits, 'MAX_WORK', 1000)
  environment = BoundedSandbox()
  template = environment.from_string('{% for i in range(50) %}{% endfor %}')
  for _ in range(30):
    environment.begin()
    template.render()


def test_a_long_body_costs_more_than_a_short_one(monkeypatch):
  monkeypatch.setattr(template_limits, 'MAX_WORK', 5000)
  loop = '{%% for i in range(50) %%}%s{%% endfor %%}'
  _render(loop % '{{ i }}')
  with pytest.raises(jinja2.TemplateError, match='characters and steps'):
    _render(loop % ('{% set x = i %}' * 100))
