"""A worker's queue and hosts that do not answer; runs that have nothing to do."""
import re
import threading

import pytest

from support.smtp import Client
from support.util import free_port, wait_for
from support.watch import Opens

pytestmark = pytest.mark.plain

BODY = 'Subject: x\r\n\r\nx\r\n'


@pytest.fixture
def silent(smtp_server):
    """A destination that takes connections and says nothing before `silent.speak` is set."""
    speak = threading.Event()
    s = smtp_server({'CONNECT': lambda line, session: None if speak.wait(120) else 'DROP'})
    s.speak = speak
    yield s
    speak.set()


@pytest.fixture
def server(martlet, smtp_server, silent):
    """One worker with four places, a silent destination and one that answers."""
    hop = smtp_server()
    m = martlet(smarthost=f'127.0.0.1::{hop.port}', relay_to='relay.test : dead.test', main='worker_processes = 1\nworker_deliveries = 4\nsmtp_accept_queue_per_connection = 0',
                routers=f'dead:\n  driver = manualroute\n  domains = dead.test\n  transport = remote_smtp\n  self = send\n  route_list = * 127.0.0.1::{silent.port}')
    return m, hop


def send(m, n, domain):
    with Client(m.port) as c:
        c.ehlo()
        for i in range(n):
            assert c.mail('s@b.test', f'u{i}@{domain}', data=BODY, hello=False)[0] == 250


def test_silent_destination_takes_only_so_many(server, silent):
    """Forty messages to it, then ten for the other: they go while all that try the silent one still hang."""
    m, hop = server
    send(m, 40, 'dead.test')
    wait_for(lambda: silent.sessions >= 2, lambda: 'the silent destination to be tried' + m.logs())
    send(m, 10, 'relay.test')
    wait_for(lambda: len(hop.messages) == 10, lambda: f'the others to go, {silent.sessions} hang' + m.logs())
    wait_for(lambda: len(set(re.findall(r'== (u\d+)@dead.test .*defer \(-63\): other deliveries wait for the hosts', m.log()))) >= 20,
             lambda: 'those that are sent away' + m.logs())
    # Those that were let in before it was known; with a process for each there would be forty.
    assert silent.sessions <= 20, silent.sessions
    assert not silent.messages


def test_message_that_was_sent_away_goes_when_the_host_answers(server, silent):
    """Although no queue run comes by: it has not been tried, so that it does not wait for one."""
    m, _ = server
    send(m, 12, 'dead.test')
    wait_for(lambda: 'other deliveries wait for the hosts' in m.log(), lambda: 'one to be sent away' + m.logs())
    silent.speak.set()
    wait_for(lambda: len(silent.messages) == 12, lambda: 'all to go' + m.logs(), 90)
    m.wait_empty()
    assert sorted(r for x in silent.messages for r in x['rcpt']) == sorted(f'<u{i}@dead.test>' for i in range(12))


def test_run_with_nothing_due_opens_no_file(martlet):
    """After each message has been tried once, runs of the daemon know that nothing is due: not one file of the spool is opened."""
    m = martlet(smarthost=f'127.0.0.1::{free_port()}', retry='* * F,2h,1h', arguments=['-q1s'],
                main='worker_processes = 1\nsmtp_accept_queue_per_connection = 0')
    send(m, 30, 'relay.test')
    wait_for(lambda: len(m.queue()) == 30 and len(set(re.findall(r'== (u\d+)@relay.test', m.log()))) == 30,
             lambda: 'the attempts' + m.logs())
    runs = lambda: m.log().count('End queue run')
    # What had been waiting in memory for its first run may be read by that one.
    before = runs()
    wait_for(lambda: runs() >= before + 2, lambda: 'two runs' + m.logs())
    with Opens(m.outside('spool/input')) as o:
        before = runs()
        wait_for(lambda: runs() >= before + 3, lambda: 'three runs' + m.logs())
        assert o.names() == []
        assert m.run('-bpc').strip() == '30'
        # A forced one does.
        m.run('-qf')
        assert len({n for n in o.names() if n.endswith('-H')}) == 30


@pytest.mark.root
def test_silent_name_server_holds_up_its_own_messages_only(martlet, smtp_server, nameserver):
    """Two places, and ten messages whose routing takes minutes."""
    hop = smtp_server()
    nameserver.trouble['dead.test'] = 'TIMEOUT'
    m = martlet(resolver=nameserver.address, smarthost=f'127.0.0.1::{hop.port}', relay_to='relay.test : dead.test',
                main='worker_processes = 1\nworker_deliveries = 2\nsmtp_accept_queue_per_connection = 0\ndns_retrans = 60s\ndns_retry = 3',
                routers='dead:\n  driver = dnslookup\n  domains = dead.test\n  transport = remote_smtp\n  no_more')
    send(m, 10, 'dead.test')
    wait_for(lambda: ('dead.test', 'MX') in nameserver.queries, lambda: 'the name server to be asked' + m.logs())
    send(m, 5, 'relay.test')
    wait_for(lambda: len(hop.messages) == 5, lambda: 'the others to go' + m.logs())
    assert not re.search(r'== u\d+@dead\.test', m.log()), m.log()
