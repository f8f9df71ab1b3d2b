"""Memory in which a batch of environments and its worker processes exchange actions and results."""

from __future__ import annotations

import mmap
import os
import resource
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

# Arrays begin at multiples of this, as TensorFlow wants those that it does not copy.
_ALIGNMENT = 64


class Exchange:
  """Arrays in an anonymous file, which several processes map; zeros at first.

  The file has no name that could stay behind, and its memory is freed with the last process. It is
  allocated at once, so that a lack of memory is an error here and not a signal later.

  Args:
    observation: (shape, dtype) of each array of one environment's observation.
    action: (shape, dtype) of an action.
    num_envs: N.
    file: descriptor of the file of another process's `Exchange` with the same arguments, which this
      one maps and closes; None makes a file.

  Attributes:
    file: descriptor of the file, open as long as this object is there; -1 if it was given.
    action: [N, ...], written by the batch.
    reward: float32 [N], written by the workers like all that follow.
    done: bool [N].
    game_over: bool [N].
    inside: uint8 [N], 1 while a method of environment i runs.
    observation: list of [N, ...].

  Raises:
    OSError: there is not enough memory.
  """

  def __init__(
    self,
    observation: Sequence[tuple[Sequence[int], str]],
    action: tuple[Sequence[int], str],
    num_envs: int,
    file: int | None = None,
  ):
    fields = [action, ((), 'float32'), ((), 'bool'), ((), 'bool'), ((), 'uint8'), *observation]
    arrays = [((num_envs, *shape), np.dtype(dtype)) for shape, dtype in fields]
    starts, size = [], 0
    for shape, dtype in arrays:
      starts.append(size)
      size += -(-int(np.prod(shape)) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    if file is None:
      self.file = os.memfd_create('environments')
      weakref.finalize(self, os.close, self.file)
      _allocate(self.file, size)
      memory = mmap.mmap(self.file, size)
    else:
      memory = mmap.mmap(file, size)
      os.close(file)
      self.file = -1
    views = [
      np.ndarray(shape, dtype, memory, start)
      for (shape, dtype), start in zip(arrays, starts, strict=True)
    ]
    self.action, self.reward, self.done, self.game_over, self.inside, *self.observation = views


def aligned_copy(array: Any) -> np.ndarray:
  """Returns a copy that TensorFlow uses as it is; it copies what is not aligned once more."""
  memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
  copy[...] = array
  return copy


def _allocate(file: int, size: int) -> None:
  """Gives a file of memory its size, in bytes.

  The limit of the size of files counts for it, too (`ulimit -f`). If it is too low, it is raised
  for this moment.
  """
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  too_low = soft != resource.RLIM_INFINITY and soft < size
  try:
    if too_low:
      resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    os.posix_fallocate(file, 0, size)
  finally:
    if too_low:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
