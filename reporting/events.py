"""TensorBoard's event file, through TensorBoard's own record writer."""

import os
import platform
import time


class EventFile:
  """TensorBoard's event file, through TensorBoard's own record writer."""

  def __init__(self, logdir):
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer import record_writer

    self._event, self._summary = event_pb2.Event, summary_pb2.Summary
    now = time.time()
    name = f'events.out.tfevents.{now:017.6f}.{platform.node()}.{os.getpid()}'
    self._writer = record_writer.RecordWriter(open(os.path.join(logdir, name), 'wb'))
    self._add(self._event(wall_time=now, file_version='brain.Event:2'))

  def write(self, wall_time, step, scalars):
    """Adds scalars, a dict by tag, at a step (environment frames)."""
    values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    self._add(self._event(wall_time=wall_time, step=step, summary=self._summary(value=values)))

  def _add(self, event):
    self._writer.write(event.SerializeToString())
    self._writer.flush()

  def close(self):
    """Closes the file."""
    self._writer.close()
