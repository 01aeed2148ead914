import base64
import hashlib
from html.parser import HTMLParser
import json

import numpy as np
import pytest

from dppo_jax.analysis.ledger import page as page_lib
from dppo_jax.analysis.ledger import replay
from tests.support import ledger_records as records

_HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)>&lt;'


class _Elements(HTMLParser):
  """Tags with their attributes, and the text of each script and style."""

  def __init__(self, page):
    super().__init__()
    self.tags, self.texts = [], []
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag in ('script', 'style'):
      self.texts.append([tag, dict(attrs), ''])

  def handle_data(self, data):
    if self.texts and self.tags[-1][0] == self.texts[-1][0]:
      self.texts[-1][2] += data

  def handle_endtag(self, tag):
    self.tags.append((f'/{tag}', {}))


def _render(record, *rules, rows=None):
  decided = [replay.own(record, records.hand_made_rule())]
  decided += [replay.decide(record, rule) for rule in rules]
  rows = np.arange(len(record.step)) if rows is None else rows
  return page_lib.render(record, decided, rows, 'about <this>')


def _data(page):
  data = next(t for t in _Elements(page).texts if t[1].get('id') == 'data')
  return json.loads(data[2])


def _structure(page):
  return [(tag, *sorted(attrs)) for tag, attrs in _Elements(page).tags]


@pytest.mark.parametrize(
  'field', ['prompts', 'completions', 'reasons', 'pieces']
)
def test_model_output_is_never_markup(field):
  texts = [_HOSTILE, '<!--<script>']
  if field == 'pieces':
    texts = {i: _HOSTILE for i in (1, 2, 3, 4)}
  page = _render(records.hand_made(**{field: texts}))
  assert '<script>alert' not in page
  assert 'onerror=' not in page.replace(r'\u003cimg src=x onerror=', '')
  assert _structure(page) == _structure(_render(records.hand_made()))
  if field != 'completions':  # Shown token by token.
    assert _HOSTILE in json.dumps(_data(page)).replace('\\"', '"')


def test_the_policy_admits_this_style_and_this_script_only():
  elements = _Elements(_render(records.hand_made()))
  policy = next(
    attrs['content']
    for tag, attrs in elements.tags
    if attrs.get('http-equiv') == 'Content-Security-Policy'
  )
  hashes = {
    kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    for kind, attrs, text in elements.texts
    if 'id' not in attrs
  }
  assert policy == (
    f"default-src 'none'; style-src 'sha256-{hashes['style']}';"
    f" script-src 'sha256-{hashes['script']}'; base-uri 'none';"
    " form-action 'none'"
  )


def test_the_page_names_no_other_resource():
  page = _render(records.hand_made())
  for tag, attrs in _Elements(page).tags:
    assert tag != 'link'
    assert not attrs.keys() & {'src', 'href', 'srcset', 'action', 'style'}
    assert not any(name.startswith('on') for name in attrs)
  for word in ('http:', 'https:', '@import', 'url(', 'innerHTML', 'eval('):
    assert word not in page


def test_numbers_are_those_of_the_record():
  record = records.hand_made()
  clip = records.rule('<clip>', rule='ratio_clip', divergence='binary_kl')
  data = _data(_render(record, clip))
  assert data['about'] == 'about <this>'
  assert [r['name'] for r in data['rules']] == ['recorded', '<clip>']
  assert data['rules'][1]['divergence'] == 'binary_kl, nats'
  assert data['rules'][0]['share']['masked'] == 2
  first, second = data['rows']
  assert (first['mu'][0], first['pi'][0]) == (0.92, 0.52)
  assert first['ratio'][0] == pytest.approx(0.52 / 0.92, rel=1e-4)
  assert first['divergence'][0] == [0.4, 0.1, 0.01, 0.3]
  assert first['keep'][0] == [0, 1, 1, 1]
  assert second['keep'][0] == [1, 0]
  assert (second['reward'], second['reason']) == (1, 'right')
  assert (second['row'], second['step'], second['update']) == (1, 7, 0)
  assert [data['pieces'][str(i)] for i in first['token']] == [
    'c', 'd', 'c', '<eos>'
  ]  # fmt: skip
  assert 'recomputed' not in first


def test_non_finite_values_become_null():
  keep = np.array([np.nan, 1, 1, 1, 1, np.inf], np.float32)
  data = _data(_render(records.hand_made(divergence=keep)))
  assert data['rows'][0]['divergence'][0] == [None, 1, 1, 1]
  assert data['rows'][1]['divergence'][0] == [1, None]


def test_a_weight_just_below_one_stays_below():
  keep = np.nextafter(np.ones(6, np.float32), np.float32(0))
  data = _data(_render(records.hand_made(keep=keep)))
  assert max(data['rows'][0]['keep'][0]) < 1


def test_rows_are_bounded_and_the_page_says_so(monkeypatch):
  record = records.trained(delta_low=0.05, delta_high=0.05)
  decided = [replay.own(record, records.rule())]
  everything = page_lib.choose_rows(record, decided)
  assert sorted(everything) == list(range(records.ROWS))
  masked = np.bincount(record.row[decided[0].masked()], minlength=records.ROWS)
  monkeypatch.setattr(page_lib, 'MAX_ROWS', 5)
  chosen = page_lib.choose_rows(record, decided)
  assert sorted(masked[chosen]) == sorted(masked)[-5:]
  data = _data(_render(record, rows=chosen))
  assert data['bounded'].startswith('5 of 24 completions')
  assert 'at most 5 rows' in data['bounded']
  assert data['rules'][0]['share']['num_tokens'] == len(record.row)
  monkeypatch.setattr(page_lib, 'MAX_TOKENS', 8)
  chosen = page_lib.choose_rows(record, decided)
  assert record.lengths()[chosen].sum() <= 8
  monkeypatch.setattr(page_lib, 'MAX_TOKENS', 1)
  assert len(page_lib.choose_rows(record, decided)) == 1


def test_rows_with_a_masked_token_of_the_first_rule_come_first():
  record = records.trained(delta_low=0.05, delta_high=0.05)
  own = replay.own(record, records.rule())
  none = own._replace(keep=np.ones_like(own.keep))
  masked = np.bincount(record.row[own.masked()], minlength=records.ROWS) > 0
  assert 0 < masked.sum() < records.ROWS
  for decided in ([own, none], [none, own]):
    chosen = page_lib.choose_rows(record, decided)
    first = chosen[: masked.sum()]
    assert masked[first].all()
    assert (np.diff(first) > 0).all()


def test_a_token_is_no_fragment_that_the_browser_scrolls_to():
  # It would leave the head of the card under the sticky bar.
  page = _render(records.hand_made())
  assert "button.id = 'token-r'" in page
  assert 'scroll-padding' in page


def test_long_texts_are_truncated():
  data = _data(_render(records.hand_made(prompts=['x' * 9999, 'y' * 2000])))
  assert [len(row['prompt']) for row in data['rows']] == [2001, 2000]


def test_the_file_is_replaced_atomically(tmp_path):
  record = records.hand_made()
  path = tmp_path / 'made' / 'page.html'
  decided = [replay.own(record, records.hand_made_rule())]
  assert page_lib.write(path, record, decided, 'about') == 2
  assert path.read_text().startswith('<!doctype html>')
  assert [p.name for p in path.parent.iterdir()] == ['page.html']
