"""Text of a host, of a file name or of an error becomes text that no terminal obeys.

What cannot be printed goes: escape sequences lose their first letter, and with it their effect, and
marks that turn the direction of writing go too. All that comes from a host passes here on its way
to a person: errors (frontend/errors.py) and whatever is said (frontend/console.py).
"""


def printable(text):
  """One line without what could steer a terminal; tabs and ends of lines become spaces."""
  return ''.join(
    letter if letter.isprintable() else ' ' if letter in '\t\r\n' else '' for letter in str(text)
  )


def printable_lines(text):
  """As `printable`, but lines stay lines."""
  return '\n'.join(map(printable, str(text).split('\n')))
