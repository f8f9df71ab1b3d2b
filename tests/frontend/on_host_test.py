"""The frontend's side on a host."""

from frontend import on_host


def test_control_characters_of_a_log_never_reach_the_terminal():
  assert on_host.printable('a\x1b[2Jb\tc\x07é') == 'a[2Jb cé'
