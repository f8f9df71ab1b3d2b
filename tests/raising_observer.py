"""Observers that misbehave."""


class Raises:
  """Raises with the first update; nothing may be called after that."""

  def on_update(self, update):
    raise OSError('its server is gone')

  def on_end(self, end):
    print('called after it raised')
