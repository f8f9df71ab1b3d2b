"""An observer that sends a run to MLflow; needs `pip install mlflow-skinny`.

export MLFLOW_TRACKING_URI=http://my-server:5000
python experiment.py --flagfile=flagfiles/catch.flags --observers=examples.mlflow_observer:MLflow
"""

import mlflow

# How each end of a run is called there.
STATUS = {'done': 'FINISHED', 'stopped': 'KILLED', 'left': 'KILLED', 'failed': 'FAILED'}


class MLflow:
  """Sends settings, rows of metrics, evaluations and the paths of checkpoints."""

  def on_start(self, start):
    settings = start['settings']
    mlflow.set_experiment(settings['level_name'].replace(':', '-').replace('/', '-'))
    mlflow.start_run(run_name=start['logdir'])
    mlflow.log_params(settings)

  def on_metrics(self, row, prefix=''):
    numbers = {prefix + k: v for k, v in row.items() if isinstance(v, (int, float))}
    mlflow.log_metrics(numbers, step=row['environment_frames'])

  def on_evaluation(self, row):
    self.on_metrics(row, 'evaluation/')

  def on_checkpoint(self, checkpoint):
    mlflow.set_tag('checkpoint', checkpoint['path'])

  def on_end(self, end):
    mlflow.set_tag('ended', end['reason'])
    mlflow.end_run(STATUS[end['outcome']])
