"""Signals ask for the end and say what it takes; only a second Ctrl-C leaves at once."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT
from runtime import process

_SIGNALS = """
import os, signal, time
from runtime.process import ONE_SIGNAL_SECS, Interrupts
signal.signal(signal.SIGHUP, signal.{sighup})
interrupts = Interrupts(sigterm_ends_run={ends_run})
interrupts.describe_end('counting sheep', 'none counted')
os.kill(os.getpid(), signal.{first})
time.sleep({later} * ONE_SIGNAL_SECS)
os.kill(os.getpid(), signal.{second})
print(interrupts.reason, interrupts.run_goes_on)
"""


@pytest.mark.parametrize(
  'first, second, later, exit_code, printed',
  [
    ('SIGTERM', 'SIGTERM', 0, 0, 'SIGTERM False\n'),
    ('SIGTERM', 'SIGTERM', 1.01, 0, 'SIGTERM False\n'),  # Nobody impatient: a person has Ctrl-C.
    ('SIGINT', 'SIGTERM', 1.01, 0, 'SIGINT False\n'),
    ('SIGHUP', 'SIGTERM', 1.01, 0, 'SIGHUP False\n'),
    ('SIGTERM', 'SIGHUP', 1.01, 0, 'SIGTERM False\n'),
    ('SIGINT', 'SIGINT', 0, 0, 'SIGINT False\n'),  # As the group and a program around it are told.
    ('SIGINT', 'SIGINT', 1.01, 1, ''),
    ('SIGTERM', 'SIGINT', 0, 1, ''),
    ('SIGHUP', 'SIGINT', 1.01, 1, ''),
  ],
)
def test_a_second_signal(first, second, later, exit_code, printed):
  done = _python(
    _SIGNALS.format(first=first, second=second, later=later, ends_run=True, sighup='SIG_DFL')
  )
  assert (done.returncode, done.stdout) == (exit_code, printed)
  announced, *forced = done.stderr.splitlines()
  again = 'once more' if first == 'SIGINT' else 'Ctrl-C'
  assert announced == f'{first}: counting sheep; {again} leaves none counted'
  assert forced == (['SIGINT again: leaving none counted'] if exit_code else [])


@pytest.mark.parametrize('sighup, reason', [('SIG_DFL', 'SIGHUP'), ('SIG_IGN', 'SIGTERM')])
def test_a_hangup_is_a_sigterm_and_stays_ignored_under_nohup(sighup, reason):
  done = _python(
    _SIGNALS.format(first='SIGHUP', second='SIGTERM', later=0, ends_run=False, sighup=sighup)
  )
  assert (done.returncode, done.stdout) == (0, f'{reason} True\n'), done.stderr


def test_a_signal_whose_terminal_is_gone_still_ends_in_order():
  # As after a hang-up: standard error cannot be written any more.
  closed = 'import os; os.close(2)\n'
  program = _SIGNALS.format(
    first='SIGHUP', second='SIGTERM', later=0, ends_run=True, sighup='SIG_DFL'
  )
  done = _python(closed + program)
  assert (done.returncode, done.stdout) == (0, 'SIGHUP False\n')


def _python(program):
  return subprocess.run(
    [sys.executable, '-c', program],
    cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
  )  # fmt: skip


WITHOUT_KERAS = """
import gc, os, sys
from runtime import process
gc.callbacks.append(lambda phase, info: collected.append(info))
collected = []
process.import_tensorflow()
print(len(collected) < 5, gc.isenabled(), gc.get_freeze_count() > 100_000)
from roles import ps, training  # All that a task is made of.
print('keras' in sys.modules, 'matplotlib' in sys.modules, 'TF_USE_LEGACY_KERAS' in os.environ)
import tensorflow as tf
print(tf.keras.version()[0])
"""


def test_tensorflow_comes_without_keras_which_is_there_for_who_asks_and_without_collections():
  done = subprocess.run(
    [sys.executable, '-c', WITHOUT_KERAS], cwd=ROOT, capture_output=True, text=True, check=True
  )
  no_collections, *keras = done.stdout.splitlines()
  assert no_collections == 'True True True', done.stdout + done.stderr
  assert keras == ['False False False', '3'], done.stdout + done.stderr


@pytest.mark.parametrize('asked, enabled', [(None, True), ('0', False)])
def test_tensorflow_convolves_with_onednn_unless_told_otherwise(asked, enabled):
  environment = {k: v for k, v in os.environ.items() if k != 'TF_ENABLE_ONEDNN_OPTS'}
  environment.update({'TF_ENABLE_ONEDNN_OPTS': asked} if asked else {})
  program = (
    'from runtime import process; process.import_tensorflow()\n'
    'from tensorflow.python.util import _pywrap_util_port; print(_pywrap_util_port.IsMklEnabled())'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
  )  # fmt: skip
  assert done.stdout == f'{enabled}\n', done.stderr


@pytest.mark.parametrize(
  'given, kept',
  [
    (None, {}),
    ('', {}),
    ('grpc.enable_http_proxy=1', {'grpc.enable_http_proxy': '1'}),
    ('grpc.keepalive_time_ms=5000,grpc.so_reuseport=1,',
     {'grpc.keepalive_time_ms': '5000', 'grpc.so_reuseport': '1'}),
  ],
)  # fmt: skip
def test_connections_have_options_of_which_the_users_own_are_kept(given, kept):
  environ = {} if given is None else {'TF_GRPC_DEFAULT_OPTIONS': given}
  for _ in range(2):  # A process that a task starts inherits them.
    process.set_channel_options(environ)
  words = environ['TF_GRPC_DEFAULT_OPTIONS'].split(',')
  options = dict(word.split('=') for word in words)
  assert len(options) == len(words)
  assert options == {
    'grpc.keepalive_time_ms': '310000',
    'grpc.keepalive_timeout_ms': '10000',
    'grpc.http2.max_pings_without_data': '0',
    'grpc.enable_http_proxy': '0',
    **kept,
  }
