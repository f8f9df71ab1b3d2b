"""Classes that run in worker processes; this module imports no TensorFlow, so they stay small."""

import ctypes
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from acting import worker_messages

BARRIER_SECS = 30


class Example:
  """Every kind of method, result and failure."""

  def __init__(self, base, factor=2):
    if base == 'bad':
      raise ValueError('base must not be bad')
    self._base, self._factor = base, factor

  def scaled(self, value, offset=0):
    return np.float32(self._factor) * value + np.float32(self._base) + offset

  def pair(self, both):
    return {'first': both[0] + np.int32(self._base), 'second': np.array([both[1]] * 3)}

  def nothing(self):
    return None

  def wake(self):
    """Changes the factor; returns it once it is 4, and fails after that."""
    self._factor += 1
    if self._factor > 4:
      raise KeyError('too often')
    return self._factor if self._factor == 4 else None

  def wrong_shape(self):
    return np.zeros(3, np.float32)

  def fails(self):
    raise KeyError('a reason')

  def exits(self):
    sys.exit('no more')

  def crashes(self):
    ctypes.string_at(0)

  def leaves(self):
    os._exit(3)

  def sleeps(self, path):
    """Holds the interpreter's lock for ever; nothing in this process can interrupt it."""
    pathlib.Path(os.fsdecode(path)).touch()
    ctypes.PyDLL(None).sleep(600)

  def starts(self):
    """Starts three programs that stay, each further away than the one before; their ids."""
    sleeps = [sys.executable, '-c', 'import time; time.sleep(600)']
    near = subprocess.Popen(sleeps)
    apart = subprocess.Popen(sleeps, start_new_session=True)
    orphaning = (
      'import subprocess, sys; print(subprocess.Popen(sys.argv[1:], start_new_session=True, '
      'stdout=subprocess.DEVNULL).pid)'
    )
    orphan = subprocess.check_output([sys.executable, '-c', orphaning, *sleeps])
    return near.pid, apart.pid, int(orphan)

  def forks_and_leaves(self, in_c):
    """Ends, but for a child that sleeps and holds all that this process had open."""
    fork = ctypes.CDLL(None).fork if in_c else os.fork
    if fork() == 0:
      time.sleep(600)
    os._exit(3)

  def forks_in_the_middle(self):
    """As `forks_and_leaves`, when half of an answer has been written."""
    os.write(self.socket_fd(), worker_messages.HEADER.pack(100) + b'half')
    self.forks_and_leaves(True)

  def socket_fd(self):
    (fd,) = [fd for fd in map(int, os.listdir('/proc/self/fd'))
             if fd > 2 and os.path.exists(f'/proc/self/fd/{fd}')
             and os.readlink(f'/proc/self/fd/{fd}').startswith('socket')]  # fmt: skip
    return fd

  def modules(self):
    return sorted(sys.modules)

  def session_id(self):
    return os.getsid(0)

  def prints(self):
    print('from the worker', flush=True)

  @staticmethod
  def _tensor_specs(method_name, kwargs, constructor_kwargs):
    import tensorflow as tf

    float32 = tf.TensorSpec([], tf.float32)
    if method_name == 'scaled':
      # Arguments arrive by name, also those that the caller left at their defaults.
      assert set(kwargs) == {'value', 'offset'}
      assert set(constructor_kwargs) == {'base', 'factor'}
      return tf.TensorSpec(kwargs['value'].shape, tf.float32)
    if method_name == 'pair':
      return {'first': tf.TensorSpec([], tf.int32), 'second': tf.TensorSpec([3], tf.float32)}
    return {
      'nothing': (),
      'wrong_shape': float32,
      'fails': float32,
      'crashes': float32,
      'sleeps': (),
    }.get(method_name)


class Closing:
  """Leaves a file behind when it is closed in an orderly way."""

  def __init__(self, path):
    self._path = pathlib.Path(path)

  def close(self):
    self._path.touch()


class Meeting:
  """Returns from `meet` only when all `count` of them are in it."""

  def __init__(self, directory, index, count):
    self._directory, self._index, self._count = pathlib.Path(directory), index, count

  def meet(self, round_index):
    (self._directory / f'{round_index}-{self._index}').touch()
    give_up = time.monotonic() + BARRIER_SECS
    while len(list(self._directory.glob(f'{round_index}-*'))) < self._count:
      if time.monotonic() > give_up:
        raise TimeoutError(f'worker {self._index} is alone')
      time.sleep(0.005)
    return self._index
