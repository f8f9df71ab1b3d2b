"""Mean returns of the last games of each level, and what they are worth over all levels."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reporting.scores import normalised_score


class LevelScores:
  """The last games of each level of a run.

  Args:
    level_names: the run's levels; () if there is one, of any name.
    window: number of latest games of a level that count.

  Attributes:
    names: the levels if there are several, else ().
  """

  def __init__(self, level_names: Sequence[str], window: int):
    self.names = tuple(level_names) if len(level_names) > 1 else ()
    self._window = window
    self._returns: dict[str, collections.deque[float]] = {}
    self._frames: collections.Counter[str] = collections.Counter()  # Since the last `figures`.
    self.start([])

  def start(self, games: Iterable[tuple[str, float]]) -> None:
    """Begins anew with the (level, return) of earlier games, the latest last."""
    names = self.names or ('',)
    self._returns = {name: collections.deque(maxlen=self._window) for name in names}
    for level_name, game_return in games:
      self.add(level_name, game_return)

  def state(self) -> dict[str, Any]:
    """Returns the games and frames so far, which JSON can hold."""
    returns = {name: list(returns) for name, returns in self._returns.items()}
    return dict(returns=returns, frames=dict(self._frames))

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Sets a state of the same levels."""
    self.start((name, one) for name, returns in state['returns'].items() for one in returns)
    self._frames = collections.Counter(state['frames'])

  def add(self, level_name: str, game_return: float) -> None:
    """Adds a game."""
    name = level_name if self.names else ''
    if name in self._returns:
      self._returns[name].append(float(game_return))

  def add_frames(self, frames: Mapping[str, int]) -> None:
    """Adds the new frames of each level."""
    self._frames.update(frames)

  def mean_return(self) -> float | None:
    """Returns the mean over levels of their mean returns; None until each has a game."""
    return mean(self._means()) if self._all_have_a_game() else None

  def best_by(self) -> float | None:
    """Returns what the best checkpoint has most of: the mean capped score, else the mean return.

    None until there are so many games as the window takes, evenly of all levels.
    """
    least = -(-self._window // len(self._returns))
    if any(len(returns) < least for returns in self._returns.values()):
      return None
    score = self._scores()['mean_capped_score']
    return self.mean_return() if score is None else score

  def figures(self) -> dict[str, Any]:
    """Returns the figures of a row about several levels; of one level they are not known.

    The shares of frames are those since the last call.
    """
    frames, self._frames = self._frames, collections.Counter()
    total = sum(frames.values())
    return dict(
      self._scores(),
      mean_return_by_level={n: mean(self._returns[n]) for n in self.names if self._returns[n]},
      frames_share_by_level={n: frames[n] / total for n in self.names} if total else {},
    )

  def _scores(self):
    if not self.names or not self._all_have_a_game():
      return dict(mean_score=None, mean_capped_score=None)
    return mean_scores(dict(zip(self.names, self._means(), strict=True)))

  def _all_have_a_game(self):
    return all(self._returns.values())

  def _means(self):
    return [sum(returns) / len(returns) for returns in self._returns.values()]


def mean_scores(mean_returns: dict[str, float]) -> dict[str, float | None]:
  """Returns the mean score over levels, and the mean of scores that are capped at 1.

  A level's score is 0 for random play and 1 for its reference, see `scores.normalised_score`. It is
  capped after the mean of the level's games (IMPALA, arXiv 1802.01561, section 5.3.1).

  Args:
    mean_returns: mean return by level.

  Returns:
    A dict of `mean_score` and `mean_capped_score`; None if a level has no reference.
  """
  scores = [normalised_score(name, value) for name, value in mean_returns.items()]
  known = [score for score in scores if score is not None]
  if len(known) < len(scores):
    return dict(mean_score=None, mean_capped_score=None)
  return dict(mean_score=mean(known), mean_capped_score=mean([min(s, 1.0) for s in known]))


def mean(values: Iterable[float]) -> float | None:
  """Returns the mean, or None of no values."""
  values = list(values)
  return sum(values) / len(values) if values else None
