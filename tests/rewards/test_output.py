from dppo_jax.rewards import output


def test_what_is_too_much_is_dropped_once_told(capsys, monkeypatch):
  monkeypatch.setattr(output, 'MAX_OUTPUT', 2048)
  capped = output.CappedOutput()
  for text in (b'', b'\xff', b'x' * 2000, b'y' * 2000, b'z'):
    capped.copy(text)
  said = capsys.readouterr().err
  assert said == (
    '\ufffd' + 'x' * 2000 + 'y' * 47 + '\nrewards.verifier: it has printed'
    ' 2 KiB; more is dropped.\n'
  )


def test_no_verdict_depends_on_a_console(monkeypatch):
  monkeypatch.setattr(output.sys, 'stderr', None)
  output.CappedOutput().copy(b'text')
