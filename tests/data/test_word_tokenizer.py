"""Words to ids and back."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from dppo_jax.data import tasks, word_tokenizer

_SORT = word_tokenizer.WordTokenizer(tasks.TASKS['sort'].vocabulary)
_WORDS = tasks.TASKS['sort'].vocabulary[2:]


def test_ids_are_positions():
  assert _SORT.encode('0 9 =') == [3, 12, 2]
  assert _SORT.encode('') == []
  assert (_SORT.vocab_size, _SORT.pad_id, _SORT.eos_ids) == (20, 0, (1,))


def test_special_words_may_stand_anywhere():
  tokenizer = word_tokenizer.WordTokenizer(['a', '<eos>', 'b', '<pad>'])
  assert (tokenizer.pad_id, tokenizer.eos_ids) == (3, (1,))
  assert tokenizer.decode([3, 2, 1, 0]) == 'b a'


@given(st.lists(st.lists(st.sampled_from(_WORDS), max_size=8), max_size=5))
def test_texts_come_back(rows):
  texts = [' '.join(row) for row in rows]
  encoded = _SORT.encode_batch(texts)
  assert encoded == [_SORT.encode(text) for text in texts]
  assert [_SORT.decode(ids) for ids in encoded] == texts


def test_decoding_a_batch_reads_what_the_mask_shows():
  ids = np.array([[5, 1, 0, 0], [0, 6, 7, 1], [99, 4, -1, 4]], np.int32)
  mask = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [0, 1, 0, 0]], bool)
  assert _SORT.decode_batch(ids, mask) == ['2', '3 4', '1']


def test_pads_and_ends_are_dropped():
  assert _SORT.decode([0, 3, 0, 4, 1]) == '0 1'


def test_unknown_words_are_refused():
  with pytest.raises(ValueError, match=r"unknown word 'x' in '1 x'"):
    _SORT.encode('1 x')


@pytest.mark.parametrize('word', ['<pad>', '<eos>'])
def test_text_cannot_spell_special_tokens(word):
  with pytest.raises(ValueError, match='unknown word'):
    _SORT.encode(f'1 {word} 2')


@pytest.mark.parametrize('token', [20, -1])
def test_ids_outside_the_vocabulary_are_refused(token):
  with pytest.raises(ValueError, match='0 to 19'):
    _SORT.decode([3, token])


@pytest.mark.parametrize(
  ('words', 'match'),
  [
    (['<pad>', '<eos>', 'a', 'a'], '1 repeated'),
    (['<pad>', 'a'], 'lacks <eos>'),
    (['a'], 'lacks <pad>, <eos>'),
  ],
)
def test_bad_vocabularies_are_refused(words, match):
  with pytest.raises(ValueError, match=match):
    word_tokenizer.WordTokenizer(words)


def test_replies_are_cut_by_words():
  assert _SORT.encode_reply(' 1  2\n3', 3) == ([4, 5, 6], False)
  assert _SORT.encode_reply('1 2 3', 2) == ([4, 5], True)
  assert _SORT.encode_reply('', 2) == ([], False)
  with pytest.raises(ValueError, match='unknown word'):
    _SORT.encode_reply('1 <eos>', 2)
