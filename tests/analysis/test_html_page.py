import base64
import hashlib
from html.parser import HTMLParser
import re

from dppo_jax.analysis import html_page
from dppo_jax.analysis.html_page import Picture, Table, Text

_HOSTILE = (
  '</pre></style><script>alert(1)</script><img src=x onerror=b()>"\'&lt;'
)
_PNG = base64.b64decode('iVBORw0KGgo=')


class _Elements(HTMLParser):
  def __init__(self, text):
    super().__init__()
    self.tags, self.data = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    self.data.append(data)


def _write(path, text):
  picture = path / 'picture.png'
  picture.write_bytes(_PNG)
  parts = [
    Table(text, ['a', text], [[text, '1']], text),
    Text(text, text),
    Picture(text, picture),
  ]
  html_page.write(path / 'page.html', text, parts)
  return _Elements((path / 'page.html').read_text('ascii'))


def test_text_is_never_markup(tmp_path):
  found, plain = _write(tmp_path, _HOSTILE), _write(tmp_path, 'plain')
  assert [(tag, *sorted(attrs)) for tag, attrs in found.tags] == [
    (tag, *sorted(attrs)) for tag, attrs in plain.tags
  ]
  assert found.data.count(_HOSTILE) == plain.data.count('plain') == 9


def test_the_page_needs_no_other_file(tmp_path):
  found = _write(tmp_path, 'naïve \ud800 μ')
  assert 'script' not in [tag for tag, _ in found.tags]
  (source,) = (attrs['src'] for tag, attrs in found.tags if tag == 'img')
  assert source == f'data:image/png;base64,{base64.b64encode(_PNG).decode()}'
  policy = next(
    attrs['content']
    for _, attrs in found.tags
    if attrs.get('http-equiv') == 'Content-Security-Policy'
  )
  text = (tmp_path / 'page.html').read_text()
  style = re.search(r'<style>(.*?)</style>', text, re.DOTALL)[1]
  digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
  assert policy == (
    f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;"
    " base-uri 'none'; form-action 'none'"
  )


def test_a_long_text_is_truncated(tmp_path):
  found = _write(tmp_path, 'x' * (html_page.MAX_TEXT + 1))
  longest = max(map(len, found.data))
  assert longest == html_page.MAX_TEXT + 1
  assert 'x…' in ''.join(found.data)


def test_tables_are_aligned_and_on_one_line_a_row():
  table = Table('Title', ['a', 'bb'], [['first\n', '1'], ['x', '22']], 'Note.')
  assert html_page.to_text(table) == (
    'Title\n  a        bb\n  first\\n   1\n  x        22\n  Note.'
  )
  assert html_page.to_text(Table('T', ['a'], [])) == 'T\n  a'
  assert html_page.to_text(Text('T', 'a\nb\x1b')) == 'T\n  a\n  b\\x1b'


def test_labels_hold_no_mathematics():
  assert html_page.label('$x_{\n') == r'\$x_{\n'
  assert len(html_page.label('x' * 100)) == html_page.MAX_LABEL
