"""Reads and writes evaluation.json, the list of a run's evaluations, newest first."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common import files
from reporting.level_scores import mean_scores
from reporting.scores import human_normalised_score, normalised_score
from runtime import locks
from runtime.process import BadInput

CONFIDENCE = 0.95
_RESAMPLES = 9999
_BOOTSTRAP_SEED = 0  # Fixed, so that the same returns have the same interval.


def mean_interval(returns: Sequence[float]) -> list[float] | None:
  """Returns the 95% percentile bootstrap interval of the mean, [low, high]; None for one game."""
  if len(returns) < 2:
    return None
  from scipy import stats  # Imported here because it takes a second.

  interval = stats.bootstrap(
    (np.asarray(returns, np.float64),),
    np.mean,
    n_resamples=_RESAMPLES,
    confidence_level=CONFIDENCE,
    method='percentile',
    rng=np.random.default_rng(_BOOTSTRAP_SEED),
  ).confidence_interval
  return [float(interval.low), float(interval.high)]


def _stratified_interval(levels: Sequence[Sequence[float]]) -> list[float] | None:
  """Returns the 95% interval of the mean over levels; each level's games are resampled."""
  if any(len(returns) < 2 for returns in levels):
    return None
  rng = np.random.default_rng(_BOOTSTRAP_SEED)
  size = _RESAMPLES
  means = [rng.choice(returns, (size, len(returns))).mean(axis=1) for returns in levels]
  tail = 50 * (1 - CONFIDENCE)
  low, high = np.percentile(np.mean(means, axis=0), [tail, 100 - tail])
  return [float(low), float(high)]


def summary(level_name: str, games: Any, num_action_repeats: int) -> dict[str, Any]:
  """Returns the entries of evaluation.json about the scores of games.

  Args:
    level_name: a Gym id.
    games: `play.GameCollector` with at least one game.
    num_action_repeats: environment frames per agent step.
  """
  scores = games.scores
  result: dict[str, Any] = dict(
    level_name=level_name,
    num_episodes=len(scores),
    mean=float(np.mean(scores)),
    mean_interval_95=mean_interval(scores),
    median=float(np.median(scores)),
    std=float(np.std(scores)),
    min=min(scores),
    max=max(scores),
    returns=scores,
    frames=games.steps * num_action_repeats,
  )
  human = human_normalised_score(level_name, result['mean'])
  score = normalised_score(level_name, result['mean'])
  if human is not None:
    result['human_normalised_score'] = human
  elif score is not None:
    result['normalised_score'] = score
  return result


def summary_of_levels(level_name: str, played: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns the entries of evaluation.json about the games of several levels.

  `mean` and `median` are over the mean returns of the levels, `num_episodes` counts the games of a
  level. The scores are those of `level_scores.mean_scores`.

  Args:
    level_name: the run's `--level_name`.
    played: `summary` of each level that was played, with `endings`.
  """
  means = {result['level_name']: result['mean'] for result in played}
  returns = [score for result in played for score in result['returns']]
  values = list(means.values())
  result: dict[str, Any] = dict(
    level_name=level_name,
    num_episodes=max(result['num_episodes'] for result in played),
    mean=float(np.mean(values)),
    mean_interval_95=_stratified_interval([result['returns'] for result in played]),
    median=float(np.median(values)),
    std=float(np.std(values)),
    min=min(returns),
    max=max(returns),
    returns=returns,
    frames=sum(result['frames'] for result in played),
    **mean_scores(means),
  )
  return {**result, 'levels': list(played)}


def endings(games: Any, most_frames: int, most_steps: int) -> dict[str, int]:
  """Returns the entries of evaluation.json about games that were cut off or not finished.

  Args:
    games: `play.GameCollector`.
    most_frames: environment frames after which a game was cut off.
    most_steps: minimum agent steps of a game that was cut off.
  """
  result = dict(max_episode_frames=most_frames)
  if cut_off := games.cut_off(most_steps):
    result['cut_off'] = cut_off
  if not games.complete:  # The scores are then biased towards short games.
    result['asked_episodes'] = games.num_episodes
  return result


def read(logdir: str) -> list[dict[str, Any]]:
  """Returns the evaluations in a run's folder, newest first; [] if there is no evaluation.json.

  Files of early versions, which hold a single evaluation, are read too.

  Raises:
    BadInput: the file holds something else.
  """
  path = _path(logdir)
  try:
    content = json.loads(files.read(path))
  except FileNotFoundError:
    return []
  except (OSError, ValueError) as e:
    raise BadInput(f'{path} cannot be read as JSON ({e}): move it away') from None
  evaluations = content if isinstance(content, list) else [content]
  if not all(isinstance(e, dict) and 'returns' in e for e in evaluations):
    raise BadInput(f'{path} is no list of evaluations: move it away')
  return evaluations


def add(logdir: str, result: Mapping[str, Any], checkpoint: str) -> str:
  """Adds an evaluation to evaluation.json; returns the line for the terminal.

  Args:
    logdir: folder of the run.
    result: result of `summary`, with further entries.
    checkpoint: path of the checkpoint.

  Raises:
    BadInput: as `read`.
    OSError: it cannot be written; the file is unchanged.
  """
  path = _path(logdir)
  record = {**result, 'checkpoint': os.path.basename(checkpoint), 'time': time.time()}
  with locks.alone(logdir, '.evaluation.lock'):  # Two evaluations may end at the same time.
    files.sweep(logdir, os.path.basename(path))
    evaluations = [record, *read(logdir)]
    files.write_whole(path, json.dumps(evaluations, indent=2) + '\n')
  return f'{line(result)}; written to {path}'


def _path(logdir: str) -> str:
  return os.path.join(logdir, 'evaluation.json')


def line(result: Mapping[str, Any]) -> str:
  """Returns an evaluation's result as one line."""
  if 'levels' in result:
    return _line_of_levels(result)
  text = f'{result["level_name"]}: {result["num_episodes"]} games, mean {result["mean"]:.2f}'
  if result['mean_interval_95']:
    low, high = result['mean_interval_95']
    text += f' (95% interval {low:.2f} to {high:.2f})'
  text += (
    f', median {result["median"]:.2f}, std {result["std"]:.2f}, min {result["min"]:.2f}, '
    f'max {result["max"]:.2f}'
  )
  if 'asked_episodes' in result:
    text += f', of {result["asked_episodes"]} asked for: short games are favoured'
  if 'cut_off' in result:
    text += (
      f', {result["cut_off"]} of them cut off at {result["max_episode_frames"]} frames '
      '(--max_episode_frames)'
    )
  if 'human_normalised_score' in result:
    text += f', human-normalised {result["human_normalised_score"]:.1%}'
  if 'normalised_score' in result:
    text += f', normalised {result["normalised_score"]:.1%}'
  return text


def _line_of_levels(result: Mapping[str, Any]) -> str:
  text = f'{result["level_name"]}: {len(result["levels"])} levels, {len(result["returns"])} games'
  if result['mean_score'] is None:
    return f'{text}, mean over levels {result["mean"]:.2f}'
  score, capped = result['mean_score'], result['mean_capped_score']
  return f'{text}, mean score {score:.1%}, with each level capped at 100% {capped:.1%}'
