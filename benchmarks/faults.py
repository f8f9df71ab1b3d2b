"""Injects faults: tasks are killed or suspended, links go down, disks fill up. Needs root."""

import os
import signal
import subprocess
import time

from clusters import ShapedNetwork

KINDS = ('kill', 'link', 'stop', 'disk')
# Minimum and maximum seconds of a fault. One side may not notice a link that is soon back.
FAULT_SECS = {'kill': (0.0, 0.0), 'link': (5.0, 60.0), 'stop': (30.0, 30.0), 'disk': (30.0, 30.0)}
_DISK_BYTES = 2**32  # In memory, as far as it is used.


class Hosts:
  """A host for each task: a network namespace and a small disk.

  Args:
    folder: where the disks are mounted.
    names: of the tasks.

  Attributes:
    places: as `clusters.Supervised` takes them.
  """

  def __init__(self, folder, names):
    self._folder, self._names = folder, list(names)
    self._network, self._disks = ShapedNetwork(len(self._names), None), []
    self.places = {
      name: (self._network.address(i), self._network.inside(i), os.path.join(folder, name))
      for i, name in enumerate(self._names)
    }

  def start(self):
    """Makes the network and the disks."""
    self._network.start()
    for _, _, disk in self.places.values():
      os.makedirs(disk)
      subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', f'size={_DISK_BYTES}', 'none', disk], check=True
      )
      self._disks.append(disk)
    return self

  def begin(self, kind, name, process):
    """Starts a fault at the task's host."""
    if kind == 'kill':
      process.kill()
      process.wait()
    elif kind == 'link':
      self._network.set_link(self._names.index(name), up=False)
    elif kind == 'stop':
      process.send_signal(signal.SIGSTOP)
    else:
      while not self._resize(name, self._used_bytes(name)):  # It grew meanwhile.
        pass

  def end(self, kind, name, process):
    """Ends the fault."""
    if kind == 'link':
      self._network.set_link(self._names.index(name), up=True)
    elif kind == 'stop':
      process.send_signal(signal.SIGCONT)
    elif kind == 'disk':
      self._resize(name, _DISK_BYTES)

  def _used_bytes(self, name):
    disk = os.statvfs(self.places[name][2])
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize

  def _resize(self, name, size):
    """Resizes the disk; returns False if its contents need more."""
    command = ['mount', '-o', f'remount,size={size}', self.places[name][2]]
    return not subprocess.run(command, check=False, capture_output=True).returncode

  def left(self):
    """Returns the ids of processes left on the hosts; those that are exiting get a moment."""
    deadline = time.monotonic() + 10
    while (pids := self._network.pids()) and time.monotonic() < deadline:
      time.sleep(0.2)
    return pids

  def close(self):
    """Removes network and disks."""
    self._network.close()
    for disk in self._disks:
      subprocess.run(['umount', '-l', disk], check=True)
      os.rmdir(disk)
    os.rmdir(self._folder)
