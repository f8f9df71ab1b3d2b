"""An observer that writes all it gets to a file, a line of JSON each.

python experiment.py --flagfile=flagfiles/catch.flags --observers=examples.json_lines:JsonLines
"""

import json
import os


class JsonLines:
  """Writes observed.jsonl in the run's folder."""

  def on_start(self, start):
    self.file = open(os.path.join(start['logdir'], 'observed.jsonl'), 'a', encoding='utf-8')
    self.write('start', start)

  def on_update(self, update):
    self.write('update', update)

  def on_game(self, game):
    self.write('game', game)

  def on_metrics(self, row):
    self.write('metrics', row)

  def on_evaluation(self, row):
    self.write('evaluation', row)

  def on_checkpoint(self, checkpoint):
    self.write('checkpoint', checkpoint)

  def on_end(self, end):
    self.write('end', end)
    self.file.close()

  def write(self, event, values):
    self.file.write(json.dumps({'event': event, **values}) + '\n')
    self.file.flush()
