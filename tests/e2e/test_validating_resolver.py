"""dns_resolver = validating: a resolver of our own, in its own process."""
import contextlib
import os
import re
import signal

import pytest

from support import dnssec, procs
from support.smtp import Client
from support.util import free_loopback, read, wait_for, write

pytestmark = [pytest.mark.root, pytest.mark.skipif(not dnssec.SIGN or not dnssec.Nsd.program, reason='the name server is not installed')]

SIGNED = 'h A 10.0.0.1\n*.w A 10.0.0.7\nalias CNAME h\naway CNAME h.plain.test.\nbig TXT ' + ' '.join('"' + f'{i:02}' * 100 + '"' for i in range(40)) + '\n'
ZONES = {'test': ('', 'signed'), 'good.test': (SIGNED, 'signed'), 'plain.test': ('h A 10.0.0.2\n', 'plain'),
         'bogus.test': ('h A 10.0.0.3\n', 'expired')}
# Query, value, $lookup_dnssec_authenticated
CASES = [('a=h.good.test', '10.0.0.1', 'yes'), ('a=x.w.good.test', '10.0.0.7', 'yes'), ('a=alias.good.test', '10.0.0.1', 'yes'), ('a=away.good.test', '10.0.0.2', 'no'),
         ('a=h.plain.test', '10.0.0.2', 'no'), ('a=none.good.test', 'NO', 'no'), ('txt=big.good.test', None, 'yes')]


@pytest.fixture
def world(make, scratch):
    ns = make(dnssec.SignedNsd, ZONES)
    config = write(os.path.join(scratch, 'validator.conf'), f'''server:
  do-not-query-localhost: no
  local-zone: "test." nodefault
stub-zone:
  name: "test."
  stub-addr: {ns.address}
''')
    return ns, f'dns_resolver = validating\ndns_trust_anchor = {ns.anchor}\ndns_validator_config = {config}\n'


def text_of(query):
    return f'${{lookup dnsdb{{{query}}}{{$value}}{{NO}}}}|$lookup_dnssec_authenticated'


def validators(m):
    return [p for p in m.place.processes() if '\0--dns-validator\0' in read(f'/proc/{p}/cmdline')]


def the_validator(m):
    """When it has come to life."""
    return wait_for(lambda: len(found := validators(m)) == 1 and found, m.logs)[0]


def test_what_is_secure(martlet, world, talk):
    ns, options = world
    c = talk(martlet(resolver=free_loopback(), main=options, daemon=False))
    for query, value, secure in CASES:
        got = c.ask(text_of(query)).split('|')
        assert got[-1] == secure and (value is None or got[0] == value), (query, got)
    assert 'gave DEFER' in c.ask(text_of('a=h.bogus.test'))


def test_the_process_alone(martlet, world, talk):
    """It is not root, has nothing but its sockets, and may neither open files nor start programs."""
    m = martlet(resolver=free_loopback(), main=world[1], daemon=False)
    c = talk(m)
    assert c.ask(text_of('a=h.good.test')) == '10.0.0.1|yes'
    one = the_validator(m)
    status = read(f'/proc/{one}/status')
    assert re.search(r'^Uid:\t(?!0\t)', status, re.M) and re.search(r'^NoNewPrivs:\t1$', status, re.M) and re.search(r'^Seccomp:\t2$', status, re.M)
    files = set()
    for fd in os.listdir(f'/proc/{one}/fd'):
        with contextlib.suppress(FileNotFoundError):  # sockets of questions come and go
            files.add(os.readlink(f'/proc/{one}/fd/{fd}'))
    # In a chroot, links of /proc may have its path in front.
    assert not [f for f in files if f.startswith('/') and not f.endswith(('/dev/null', '/dev/urandom'))], files


def test_its_death_costs_nothing(martlet, world, talk):
    m = martlet(resolver=free_loopback(), main=world[1] + 'dns_retrans = 4s\ndns_retry = 1\n', daemon=False)
    c = talk(m)
    asked = [0]

    def says(value):
        asked[0] += 1  # a name of its own each time: answers are remembered
        return c.ask(text_of(f'a=n{asked[0]}.w.good.test')) == value

    assert says('10.0.0.7|yes')
    for sig in (signal.SIGKILL, signal.SIGSEGV):
        one = the_validator(m)
        os.kill(one, sig)
        wait_for(lambda: not procs.alive(one), 'it to end')
        wait_for(lambda: says('10.0.0.7|yes'), 'another one to answer')
    one = the_validator(m)
    os.kill(one, signal.SIGSTOP)
    assert not says('10.0.0.7|yes')
    wait_for(lambda: says('10.0.0.7|yes'), 'another one to answer')
    assert the_validator(m) != one


def test_ends_with_who_started_it(martlet, world, talk):
    m = martlet(resolver=free_loopback(), main=world[1], daemon=False)
    c = talk(m)
    assert c.ask(text_of('a=h.good.test')) == '10.0.0.1|yes'
    the_validator(m)
    c.end()
    wait_for(lambda: not validators(m), 'it to end')


def test_servers_elsewhere_are_not_believed(martlet, nameserver):
    """AD of servers that are not on this host counts when they are named, or when resolv.conf says so."""
    nameserver.records[('h.x.test', 'A')] = ['10.0.0.9']
    nameserver.authentic = True
    m = martlet(resolver=nameserver.address, daemon=False)
    assert m.expand(text_of('a=h.x.test')) == '10.0.0.9|yes'
    # One more server, which nobody reaches: it could have answered.
    for more, main, secure in (('', '', 'no'), ('options trust-ad\n', '', 'yes'), ('', 'dns_trusted_servers = 2001:db8::1 192.0.2.1', 'yes'),
                               ('', 'dns_trusted_servers = 192.0.2.2', 'no')):
        m = martlet(resolver=nameserver.address, daemon=False, main=main,
                    etc={'resolv.conf': f'nameserver {nameserver.address}\nnameserver 192.0.2.1\n{more}'})
        assert m.expand(text_of('a=h.x.test')) == f'10.0.0.9|{secure}', (more, main)


@pytest.mark.parametrize('wrong, text', [
    ('dns_resolver = validate', 'must be "system" or "validating"'),
    ('dns_resolver = validating\ndns_trust_anchor = key', 'must be absolute'),
])
def test_wrong_options(martlet, wrong, text):
    m = martlet(main=wrong, daemon=False)
    done = m.run('-bV', check=False)
    assert done.returncode != 0 and text in done.stdout


def test_files_that_are_not_there(martlet, world, talk):
    """Queries fail for the moment, and the log says what may be wrong."""
    options = world[1].replace('dns_trust_anchor = ', 'dns_trust_anchor = /nonexistent')
    m = martlet(resolver=free_loopback(), main=options, arguments=[], acl_rcpt='  accept set acl_m_x = ${lookup dnsdb{a=h.good.test}}\n')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(451, 'RCPT TO:<u0@local.test>')
    m.wait_log(r'the validating resolver ended before it answered anything')


def ask_by_smtp(m, name):
    """The reply to RCPT of an ACL that looks a name up."""
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        return c.cmd(f'RCPT TO:<{name}@local.test>')


@pytest.fixture
def daemon(martlet, world):
    def start(patience=60):
        return martlet(resolver=free_loopback(), main=world[1] + f'worker_processes = 3\ndns_retrans = {patience}s\ndns_retry = 1\n', arguments=[],
                       acl_rcpt='  deny message = $acl_m_x\n    set acl_m_x = ${lookup dnsdb{a=$local_part.w.good.test}}|$lookup_dnssec_authenticated\n')
    return start


def test_one_for_all_workers(daemon):
    m = daemon()
    one = the_validator(m)
    for i in range(12):  # connections go to all workers
        assert ask_by_smtp(m, f'a{i}') == (550, '10.0.0.7|yes')
    assert validators(m) == [one]
    m.stop()
    wait_for(lambda: not procs.alive(one), 'it to end with the daemon')


def test_the_daemon_starts_another(daemon):
    m = daemon(patience=4)
    asked = [0]

    def says():
        asked[0] += 1
        return ask_by_smtp(m, f'b{asked[0]}')[0] == 550

    for sig in (signal.SIGKILL, signal.SIGSEGV):
        one = the_validator(m)
        os.kill(one, sig)
        wait_for(lambda: one not in validators(m) and len(validators(m)) == 1, m.logs)
        wait_for(says, 'another one to answer')
    m.wait_log(r'the validating resolver \(pid \d+\) ended; starting another', count=2)
    one = the_validator(m)
    os.kill(one, signal.SIGSTOP)  # it hangs: who asks in vain says so
    wait_for(says, 'another one to answer')
    assert the_validator(m) != one


def test_reload(daemon):
    """Workers of before keep theirs until they end; the new ones have another."""
    m = daemon()
    one = the_validator(m)
    assert ask_by_smtp(m, 'c1') == (550, '10.0.0.7|yes')
    m.reload()
    wait_for(lambda: len(validators(m)) == 1 and one not in validators(m), m.logs)
    assert ask_by_smtp(m, 'c2') == (550, '10.0.0.7|yes')


def test_many_questions(daemon):
    """All at once, of many sessions: each has its answer."""
    m = daemon()
    sessions = [Client(m.port) for _ in range(30)]
    for c in sessions:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
    for i, c in enumerate(sessions):
        c.send(f'RCPT TO:<d{i}@local.test>\r\n'.encode())
    for c in sessions:
        assert c.reply()[0] == 550
        c.close()
