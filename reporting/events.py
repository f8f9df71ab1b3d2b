"""Writes TensorBoard's event file.

Why not `tensorboard.summary.Writer`: docs/design.md, "Written by hand".
"""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common import files

if TYPE_CHECKING:
  from tensorboard.compat.proto.event_pb2 import Event
  from tensorboard.compat.proto.summary_pb2 import Summary


class EventFile:
  """TensorBoard's event file of one process; each record is on disk when `write` returns.

  A record that can only be written in part is removed, since readers stop at such a record.

  Args:
    logdir: the run's folder. The file is created with the first record.
  """

  def __init__(self, logdir: str):
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer import record_writer

    self._event_pb2 = event_pb2
    self._event, self._summary = event_pb2.Event, summary_pb2.Summary
    self._record_writer = record_writer.RecordWriter
    now = time.time()
    name = f'events.out.tfevents.{now:017.6f}.{platform.node()}.{os.getpid()}'
    self._file = files.AppendOnlyFile(os.path.join(logdir, name))
    self._first = self._event(wall_time=now, file_version='brain.Event:2')

  def write(self, wall_time: float, step: int, scalars: Mapping[str, float]) -> None:
    """Adds scalars.

    Args:
      wall_time: seconds since 1970.
      step: environment frames.
      scalars: values by tag.

    Raises:
      OSError: nothing was written.
    """
    values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    self._add(self._event(wall_time=wall_time, step=step, summary=self._summary(value=values)))

  def begin(self, step: int, settings: Mapping[str, Any]) -> None:
    """Marks a start of the run; TensorBoard then drops events of any process beyond `step`.

    Args:
      step: environment frames.
      settings: shown as hyperparameters; TensorBoard keeps the values of the first start.

    Raises:
      OSError: it was not written.
    """
    started = self._event_pb2.SessionLog(status=self._event_pb2.SessionLog.START)
    self._add(self._event(wall_time=time.time(), step=step, session_log=started))
    self._add(self._event(wall_time=time.time(), summary=_hyperparameters(settings)))

  def _add(self, event: Event) -> None:
    if self._first:
      self._file.append(self._record(self._first))
      self._first = None
    self._file.append(self._record(event))

  def _record(self, event: Event) -> bytes:
    buffer = io.BytesIO()
    self._record_writer(buffer).write(event.SerializeToString())
    return buffer.getvalue()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _hyperparameters(settings: Mapping[str, Any]) -> Summary:
  """Returns the summary that TensorBoard's HParams page reads.

  `tensorboard.plugins.hparams.summary`, which makes one too, imports TensorFlow.
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
