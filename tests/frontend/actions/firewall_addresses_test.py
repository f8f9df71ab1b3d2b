"""Names of hosts mean the same on all of them, or nothing is set."""

import pytest

from frontend.actions import firewall

A, B, C = '10.0.0.1', '10.0.0.2', '10.0.0.3'


def reply(own, **found):
  return {'own': own, 'found': {name: found.get(name, [name]) for name in ('a', 'b', 'c')}}


def test_addresses_are_those_of_all_hosts_as_each_knows_them():
  """A host's own name may be one of loopback there, as Debian writes it into /etc/hosts."""
  replies = {
    'a': reply([A, '127.0.0.1'], a=['127.0.1.1'], b=[B], **{'c': [C]}),
    'b': reply([B, 'fe80::1'], a=[A], b=[B], c=[C]),
    '10.0.0.3': reply([C], a=[A], b=[B]),
  }
  agreed, problems = firewall.agreed_addresses(replies)
  assert problems == {}
  assert agreed == {'a': ['127.0.1.1', B, C], 'b': [A, B, C], '10.0.0.3': [A, B, C]}


def test_an_address_that_the_host_of_the_name_does_not_have():
  replies = {'a': reply([A], a=[A], b=[B]), 'b': reply([B], a=[A, '10.9.9.9'], b=[B])}
  agreed, problems = firewall.agreed_addresses(replies)
  assert list(agreed) == ['a']
  assert problems['b'].startswith('a is 10.0.0.1, 10.9.9.9 here, which that host does not have; ')


@pytest.mark.parametrize('silent', [None, reply([])], ids=['no reply', 'no interfaces told'])
def test_two_hosts_that_disagree_about_one_that_says_nothing(silent):
  replies = {
    'a': reply([A], a=[A], b=[B], c=[C]),
    'b': reply([B], a=[A], b=[B], c=['fd00::3']),
    'c': silent,
  }
  agreed, problems = firewall.agreed_addresses(replies)
  assert problems['b'].startswith('c is fd00::3 here, but 10.0.0.3 on a; ')
  assert 'a' in agreed and 'b' not in agreed


@pytest.mark.parametrize(
  'found, sentence',
  [
    (['127.0.0.2'], 'b is 127.0.0.2 on this host, which means this host itself'),
    ('b does not resolve on this host: Name or service not known', 'b does not resolve'),
    ([], 'b does not resolve on this host'),
  ],
)
def test_names_that_cannot_be_used(found, sentence):
  _, problems = firewall.agreed_addresses({'a': reply([A], a=[A], b=found), 'b': None})
  assert problems['a'].startswith(sentence)


def test_other_spellings_of_an_address_are_no_difference():
  replies = {
    'a': reply(['fd00::1'], a=['fd00::1'], b=['fd00:0:0::2']),
    'b': reply(['FD00::2'], a=['fd00::0:1'], b=['fd00::2']),
  }
  agreed, problems = firewall.agreed_addresses(replies)
  assert problems == {} and agreed['a'] == ['fd00::1', 'fd00::2']
