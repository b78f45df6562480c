"""What one host refuses for now, the next one gets in the same attempt; what Debian's Exim 4.96 logs of it was recorded here.
And options of the smtp transport that are wrong."""
import os
import re
from types import SimpleNamespace

import pytest

from support.util import free_port, read

MESSAGE = 'From: a@b.test\nSubject: hi\n\nbody line\n'


def send(martlet, first, second, *to, client='', allow_panic=None):
    hosts = f'127.0.0.1::{first.port}:127.0.0.1::{second.port}' if second else f'127.0.0.1::{first.port}'
    m = martlet(daemon=False, smarthost=hosts, client=client, allow_panic=allow_panic)
    m.run('-odi', '-f', 'a@b.test', *(to or ('x@relay.test',)), input=MESSAGE)
    return m


def nobody():
    """A host that refuses connections."""
    return SimpleNamespace(port=free_port())


@pytest.mark.parametrize('verb', ['MAIL', 'RCPT', 'DATA', 'DOT'])
def test_the_next_host_gets_it(martlet, smtp_server, verb):
    first, second = smtp_server({verb: '450 not now'}), smtp_server()
    log = send(martlet, first, second).log()
    assert len(second.messages) == 1 and not any(x['data'] for x in first.messages), log
    assert re.search(r'=> x@relay\.test R=relay T=remote_smtp H=127\.0\.0\.1 \[127\.0\.0\.1\]', log) and 'Completed' in log, log
    assert log.count('450 not now') == 1 and ' == ' not in log, log


def test_nobody_takes_it(martlet, smtp_server):
    first, second = smtp_server({'RCPT': '450 one'}), smtp_server({'RCPT': '450 two'})
    m = send(martlet, first, second)
    assert re.search(r'== x@relay\.test R=relay T=remote_smtp defer \(-44\) H=127\.0\.0\.1 \[127\.0\.0\.1\]: .*: 450 two$', m.log(), re.M), m.log()
    assert m.log().count('450 one') == 1 and len(m.queue()) == 1


@pytest.mark.parametrize('verb, error', [('RCPT', -44), ('DOT', -46)])
@pytest.mark.parametrize('after', ['refused', 'dropped', 'busy'])
def test_the_last_error_is_told(martlet, smtp_server, verb, error, after):
    """The log tells what the last host did; the retry records tell of both."""
    first = smtp_server({verb: '450 one'})
    second = nobody() if after == 'refused' else smtp_server({'CONNECT': '421 two' if after == 'busy' else 'DROP'})
    m = send(martlet, first, second)
    told = {'refused': r'\(111\): Connection refused', 'dropped': r'\(-18\) H=\S+ \[127\.0\.0\.1\]: Remote host closed connection .*',
            'busy': r'\(0\) H=\S+ \[127\.0\.0\.1\]: .*: 421 two'}[after]
    assert re.search(rf'== x@relay\.test R=relay T=remote_smtp defer {told}$', m.log(), re.M), m.log()
    assert m.log().count('450 one') == 1 and len(m.queue()) == 1
    records = m.run('--dumpdb', f'{m.directory}/spool', 'retry')
    assert re.search(rf'^  [RT]:\S+ {error} .*: 450 one$', records, re.M) and re.search(rf'^  T:\S+:{second.port} ', records, re.M), records


def test_a_refusal_that_came_last_is_told(martlet, smtp_server):
    log = send(martlet, nobody(), smtp_server({'RCPT': '450 two'})).log()
    assert re.search(r'== x@relay\.test .* defer \(-44\) .*: 450 two$', log, re.M) and 'Connection refused' in log, log


def test_no_host_refused_for_good(martlet, smtp_server):
    """One refuses for now, the other does not greet: that is not for good, and what the first said is why it waits."""
    first, second = smtp_server({'RCPT': '450 one'}), smtp_server({'CONNECT': '554 no'})
    log = send(martlet, first, second).log()
    assert re.search(r'== x@relay\.test .* defer \(-44\) .*: 450 one$', log, re.M) and '**' not in log, log


def test_refused_for_good_by_the_second(martlet, smtp_server):
    first, second = smtp_server({'RCPT': '450 one'}), smtp_server({'RCPT': '550 two'})
    log = send(martlet, first, second).log()
    assert re.search(r'\*\* x@relay\.test R=relay .*: 550 two$', log, re.M) and ' == ' not in log, log


def test_only_what_was_refused_goes_on(martlet, smtp_server):
    first = smtp_server({'RCPT': lambda line, session: '450 not x' if '<x@' in line else None})
    second = smtp_server()
    log = send(martlet, first, second, 'x@relay.test', 'y@relay.test').log()
    assert [len(s.messages) for s in (first, second)] == [1, 1] and first.messages[0]['rcpt'] == ['<y@relay.test>'], log
    assert log.count(' => ') == 2 and ' -> ' not in log and 'Completed' in log, log


def test_fallback_hosts_get_it(martlet, smtp_server):
    first, second = smtp_server({'RCPT': '450 one'}), smtp_server()
    m = send(martlet, first, None, client=f'fallback_hosts = 127.0.0.1::{second.port}')
    assert len(second.messages) == 1 and ' == ' not in m.log(), m.log()


def test_one_host_is_enough(martlet, smtp_server):
    first, second = smtp_server({'MAIL': '450 one'}), smtp_server()
    m = send(martlet, first, second, client='hosts_max_try = 1')
    assert not second.sessions and re.search(r'== x@relay\.test .*defer \(-45\) .*450 one', m.log()), m.log()


WRONG = [
    ('interface = ${bad}', r'defer \(-1\): failed to expand "interface" option for remote_smtp transport: unknown variable'),
    ('interface = abc', r'defer \(-1\): "abc" is not a valid IP address for the "interface" option for remote_smtp transport'),
    ('port = nosuch', r'defer \(-1\): TCP port "nosuch" is not defined for remote_smtp transport'),
    ('port = ${bad}', r'defer \(-1\): failed to expand "\$\{bad\}" \("port" option\) for remote_smtp transport: unknown'),
    ('hosts_override\nhosts = ${bad}', r'defer \(-1\): failed to expand list of hosts "\$\{bad\}" in remote_smtp transport: unknown'),
    ('hosts_override\nhosts = ${if eq{1}{2}{x}}', r'defer \(-1\): remote_smtp transport has empty hosts setting'),
    ('message_size_limit = 10', r'\*\* x@relay\.test R=relay T=remote_smtp : message is too big \(transport limit = 10\)'),
]


@pytest.mark.parametrize('options,text', WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_nobody_is_asked(martlet, smtp_server, options, text):
    server = smtp_server()
    m = send(martlet, server, None, client=options.replace('\n', '\n  '), allow_panic='.')
    assert re.search(text, m.log()) and not server.sessions, m.log()


def test_a_filter_begins_with_a_umask_of_its_own(martlet, smtp_server, scratch):
    os.makedirs(f'{scratch}/told', exist_ok=True)
    os.chmod(f'{scratch}/told', 0o777)
    with open(f'{scratch}/filter', 'w') as f:
        f.write(f'umask > {scratch}/told/mask; exec cat\n')
    os.chmod(f'{scratch}/filter', 0o644)
    server = smtp_server()
    m = send(martlet, server, None, client=f'transport_filter = /bin/sh {scratch}/filter')
    assert len(server.messages) == 1 and read(f'{scratch}/told/mask') == '0077\n', m.log()


def test_no_interface_after_all(martlet, smtp_server):
    server = smtp_server()
    m = send(martlet, server, None, client='interface = ${if eq{1}{2}{x}fail}')
    assert len(server.messages) == 1, m.log()
