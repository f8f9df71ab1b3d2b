"""Text for people: no control characters of a host reach the terminal; durations, bars, hints."""

import io

import pytest

from common import texts
from frontend import cluster
from frontend.actions import status
from frontend.console import Console
from frontend.errors import HostError

# Clear the screen; set the title; go up and overwrite; a C1 escape; write from right to left; ...
STEERING = ['\x1b[2J', '\x1b]0;mine\x07', '\r\x1b[1A', '\x9b2J', '\u202e', '\x00', '\x7f', '\x08']


def test_one_line():
  assert texts.printable('a\x1b[2Jb\tc\x07é') == 'a[2Jb cé'
  assert texts.printable('two\nlines') == 'two lines'
  assert texts.printable_lines('two\n\x1b[1mlines\r\n') == 'two\n[1mlines \n'


@pytest.mark.parametrize('steering', STEERING)
def test_nothing_that_is_said_steers_the_terminal(steering):
  out = io.StringIO()
  console = Console(cluster.Cluster((), (), ()), None, [], out)
  console.say(f'learner-0: {steering}done')
  console.failures([(type('Host', (), {'name': 'h'}), HostError('', f'there is no {steering}x'))])
  row = dict.fromkeys(status.STATUS_KEYS) | {'task': 'ps-0', 'host': 'h', 'restarts': 0}
  row |= {'state': f'exi{steering}ted', 'last_line': f'bye{steering}'}
  out.write(status.status_table([row], 1000))
  assert not set(steering) & set('\x1b\x07\x9b\u202e\x00\x7f\x08\r') & set(out.getvalue())
  assert out.getvalue().startswith('learner-0: ') and 'ps-0' in out.getvalue()


@pytest.mark.parametrize(
  'secs,text',
  [(None, '-'), (0, '0s'), (59.9, '59s'), (61, '1m 01s'), (3600, '1h 00m'), (90000, '1d 01h')],
)
def test_durations(secs, text):
  assert texts.duration(secs) == text


@pytest.mark.parametrize(
  'values,encoding,text',
  [
    ([3.0], 'utf-8', '▁'),
    ([2.0, 2.0], None, '▁▁'),
    ([-1.0, 6.0, 2.5, 0.0], 'utf-8', '▁█▅▂'),
    ([-1.0, 6.0, 0.0], 'latin-1', '_@.'),
  ],
)
def test_numbers_as_bars(values, encoding, text):
  assert texts.spark(values, encoding) == text


def test_similar_words_are_suggested():
  known = ['logdir', 'level_name', 'log_every']
  assert texts.did_you_mean('logdri', known, '--{}') == 'did you mean --logdir?'
  assert texts.did_you_mean('level', known, count=2, cutoff=0.1).startswith('did you mean level_')
  assert ' or ' in texts.did_you_mean('level', known, count=2, cutoff=0.1)
  assert texts.did_you_mean('batch_size', known) == ''
