"""Shows a population: a table of its members, and a picture of returns, lineage and settings."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from common import texts
from reporting import comparison_pictures, lineage
from reporting.lineage import Comparison
from reporting.runs import Run

if TYPE_CHECKING:
  import matplotlib.axes

History = Sequence[Comparison]


def histories(runs: Sequence[Run]) -> dict[str, list[Comparison]]:
  """Returns the histories of those runs that are members of a population, by name of the folder.

  Raises:
    RunFailed: a history cannot be read.
  """
  found = {os.path.basename(os.path.normpath(run.folder)): lineage.read(run.folder) for run in runs}
  return {name: history for name, history in found.items() if history}


def ancestors(members: Mapping[str, History]) -> dict[str, str]:
  """Returns {member: the member with whose first weights its line began}.

  A copy is one of what the other was then: later copies of the other do not count.
  """
  return {name: _ancestor(name, math.inf, math.inf, members) for name in members}


def _ancestor(name: str, before: float, frames: float, members: Mapping[str, History]) -> str:
  """Returns as which member the weights began that a member had before a time, at some frames."""
  copies = [
    made
    for made in members.get(name, ())
    if made.copied and made.time < before and made.frames <= frames
  ]
  if not copies:
    return name
  last = copies[-1]
  assert last.other is not None and last.other_frames is not None
  return _ancestor(last.other, last.time, last.other_frames, members)


def table(runs: Sequence[Run], members: Mapping[str, History]) -> str:
  """Returns the members as a table, the one with the greatest return first."""
  line_of = ancestors(members)
  by_name = {os.path.basename(os.path.normpath(run.folder)): run for run in runs}
  settings = list(dict.fromkeys(n for history in members.values() for n in history[-1].settings))
  rows = [['member', 'frames', 'return', 'copied', 'began as', *settings]]
  for name in sorted(members, key=lambda name: -by_name[name].returns[-1]):
    run, history = by_name[name], members[name]
    values = [history[-1].settings.get(setting) for setting in settings]
    rows.append([
      name,
      f'{run.frames[-1]:,.0f}',
      f'{run.returns[-1]:.4g}',
      str(sum(made.copied for made in history)),
      line_of[name],
      *('-' if value is None else f'{value:.4g}' for value in values),
    ])  # fmt: skip
  return texts.layout(rows)


def plot(runs: Sequence[Run], members: Mapping[str, History], path: str) -> None:
  """Draws returns, lineage and settings of all members over their frames.

  In the lineage, each member has a row, an arrow leads from the member that was copied to the one
  that copied it, and the colour is that of the member with whose first weights the line began.

  Raises:
    OSError: the picture cannot be written; an earlier one is unchanged.
  """
  settings = list(dict.fromkeys(n for history in members.values() for n in history[-1].settings))
  colors = {name: f'C{number % 10}' for number, name in enumerate(members)}
  figure, (returns, lines, *others) = comparison_pictures.new_picture(2 + len(settings))
  for run in runs:
    name = os.path.basename(os.path.normpath(run.folder))
    if name in members:
      last = max(float(run.frames[-1]), members[name][-1].frames)
      returns.plot(run.frames / 1e6, run.returns, color=colors[name], linewidth=1, label=name)
      _plot_line(lines, name, members, last, colors)
      for axis, setting in zip(others, settings):
        _plot_setting(axis, members[name], setting, last, colors[name])
  returns.set_ylabel('mean return of 100 games')
  lines.set_ylabel('lineage')
  lines.set_yticks(range(len(members)), list(members), fontsize='small')
  for axis, setting in zip(others, settings):
    axis.set_ylabel(setting)
    axis.set_yscale('log')
  (others or [lines])[-1].set_xlabel('environment frames (million)')
  figure.legend(fontsize='small', loc='outside right upper')
  comparison_pictures.save(figure, path)


def _plot_line(
  axis: matplotlib.axes.Axes,
  name: str,
  members: Mapping[str, History],
  last: float,
  colors: Mapping[str, str],
) -> None:
  """Draws a member's row of the lineage, to its last frame."""
  rows = {member: row for row, member in enumerate(members)}
  history = members[name]
  ends = [*(made.frames for made in history[1:]), last]
  for made, end in zip(history, ends):
    began_as = _ancestor(name, math.nextafter(made.time, math.inf), made.frames, members)
    color = colors.get(began_as, 'gray')
    axis.plot([made.frames / 1e6, end / 1e6], [rows[name]] * 2, color=color, linewidth=3)
    if made.copied and made.other in rows and made.other_frames is not None:
      axis.annotate(
        '',
        xy=(made.frames / 1e6, rows[name]),
        xytext=(made.other_frames / 1e6, rows[made.other]),
        arrowprops=dict(arrowstyle='->', color='black', linewidth=0.8),
      )


def _plot_setting(
  axis: matplotlib.axes.Axes, history: History, setting: str, last: float, color: str
) -> None:
  """Draws a setting of a member as steps, to its last frame."""
  frames = [made.frames for made in history]
  values = [made.settings[setting] for made in history]
  axis.step(
    np.array([*frames, last]) / 1e6,
    [*values, values[-1]],
    where='post',
    color=color,
    linewidth=1,
  )
