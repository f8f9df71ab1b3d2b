"""TensorBoard's event file, through TensorBoard's own record writer."""

import io
import os
import platform
import time

from common import files


class EventFile:
  """TensorBoard's event file: whole records, each on disk when `write` returns.

  Who reads it stops at a record that is cut off, so one that cannot be written is taken away.
  """

  def __init__(self, logdir):
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer import record_writer

    self._event_pb2 = event_pb2
    self._event, self._summary = event_pb2.Event, summary_pb2.Summary
    self._record_writer = record_writer.RecordWriter
    now = time.time()
    name = f'events.out.tfevents.{now:017.6f}.{platform.node()}.{os.getpid()}'
    self._file = files.AppendOnlyFile(os.path.join(logdir, name))
    self._first = self._event(wall_time=now, file_version='brain.Event:2')

  def write(self, wall_time, step, scalars):
    """Adds scalars, a dict by tag, at a step (environment frames). May raise OSError."""
    values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    self._add(self._event(wall_time=wall_time, step=step, summary=self._summary(value=values)))

  def begin(self, step, settings):
    """Says that the run goes on from a step: what was written beyond it, by any process, is void.

    Args:
      step: environment frames.
      settings: dict of the run's settings, shown as hyperparameters; TensorBoard keeps the first.
    """
    started = self._event_pb2.SessionLog(status=self._event_pb2.SessionLog.START)
    self._add(self._event(wall_time=time.time(), step=step, session_log=started))
    self._add(self._event(wall_time=time.time(), summary=_hyperparameters(settings)))

  def _add(self, event):
    if self._first:
      self._file.append(self._record(self._first))
      self._first = None
    self._file.append(self._record(event))

  def _record(self, event):
    buffer = io.BytesIO()
    self._record_writer(buffer).write(event.SerializeToString())
    return buffer.getvalue()

  def close(self):
    """Closes the file."""
    self._file.close()


def _hyperparameters(settings):
  """The summary that TensorBoard's HParams page reads.

  Its own `hparams_pb` would import TensorFlow.
  """
  from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
  from tensorboard.plugins.hparams import plugin_data_pb2

  session = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
  for name, value in settings.items():
    if isinstance(value, bool):
      session.hparams[name].bool_value = value
    elif isinstance(value, (int, float)):
      session.hparams[name].number_value = value
    else:
      session.hparams[name].string_value = str(value)
  content = plugin_data_pb2.HParamsPluginData(version=0, session_start_info=session)
  plugin = summary_pb2.SummaryMetadata.PluginData(
    plugin_name='hparams', content=content.SerializeToString()
  )
  empty = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=0)])
  value = summary_pb2.Summary.Value(
    tag='_hparams_/session_start_info',
    metadata=summary_pb2.SummaryMetadata(plugin_data=plugin),
    tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=empty),
  )
  return summary_pb2.Summary(value=[value])
