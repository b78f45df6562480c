"""The queue: connections that carry more than one of its messages, queue runs."""
import re
import types

import pytest

pytestmark = pytest.mark.plain


@pytest.fixture
def queued(martlet):
    """queued(hop, client='…', n=3): a Martlet without a daemon whose queue holds n messages for the hop."""
    def make(hop, client='', n=3, **gaps):
        m = martlet(daemon=False, smarthost='127.0.0.1', client=f'port = {hop.port}\n  ' + client, **gaps)
        for i in range(n):
            m.run('-odq', '-f', 'a@b.test', f'r{i}@relay.test', input=f'Subject: {i}\n\nx\n')
        return m
    return make


def recipients(hop):
    """Not in the order of sending: ids of one second are in the order of process ids, which begin anew now and then."""
    return sorted(m['rcpt'][0] for m in hop.messages)


ALL = ['<r0@relay.test>', '<r1@relay.test>', '<r2@relay.test>']


def test_one_connection_for_all_that_wait(smtp_server, queued):
    h = smtp_server()
    m = queued(h)
    m.run('-qq')
    assert recipients(h) == ALL and h.sessions == 1, m.logs()
    assert len(re.findall(r'=> r\d@relay.test .* H=127.0.0.1 \[127.0.0.1\]\* ', m.log())) == 2
    assert len(re.findall('Completed', m.log())) == 3 and not m.queue()


def test_only_so_many_over_one_connection(smtp_server, queued):
    h = smtp_server()
    m = queued(h, 'connection_max_messages = 2')
    m.run('-qq')
    assert recipients(h) == ALL and h.sessions == 2, m.logs()


def test_ports_of_a_host_wait_apart(smtp_server, queued):
    """What waits for one port is not tried over a connection to another."""
    h, other = smtp_server(), smtp_server()
    m = queued(types.SimpleNamespace(port=f'${{if eq{{$domain}}{{other.test}}{{{other.port}}}{{{h.port}}}}}'), n=0)
    for i in range(3):
        for to in f'r{i}@relay.test', f'o{i}@other.test':
            m.run('-odq', '-f', 'a@b.test', to, input='\nx\n')
    m.run('-qq')
    assert recipients(h) == ALL and h.sessions == 1, m.logs()
    assert len(other.messages) == 3 and other.sessions == 1, m.logs()
    assert not m.queue()


def test_over_tls(smtp_server, queued, authority):
    h = smtp_server(tls=authority.issue('hop.test'))
    m = queued(h, 'tls_verify_certificates =')
    m.run('-qq')
    assert recipients(h) == ALL and h.sessions == 1 and all(x['tls'] for x in h.messages), m.logs()


def test_not_over_tls_when_told_so(smtp_server, queued, authority):
    h = smtp_server(tls=authority.issue('hop.test'))
    m = queued(h, 'tls_verify_certificates =\n  hosts_nopass_tls = *')
    m.run('-qq')
    assert recipients(h) == ALL and h.sessions == 3, m.logs()


def test_server_that_hangs_up_before_the_second_message(smtp_server, queued):
    count = []

    def mail(line, session):
        first = session not in count
        count.append(session)
        return None if first else 'DROP'
    h = smtp_server({'MAIL': mail})
    m = queued(h)
    m.run('-qq')
    assert recipients(h) == ALL and h.sessions == 3, m.logs()
    assert ' == ' not in m.log()


def test_interface_of_another_sender(smtp_server, queued):
    h = smtp_server()
    m = queued(h, 'interface = ${if eq{$sender_address_local_part}{b}{127.0.0.2}{127.0.0.1}}')
    m.run('-odq', '-f', 'b@b.test', 'r3@relay.test', input='\nx\n')
    m.run('-qq')
    assert recipients(h) == ALL + ['<r3@relay.test>'] and h.sessions == 2, m.logs()


def test_message_that_fails_does_not_hold_up_others(smtp_server, queued):
    h = smtp_server({'RCPT': lambda line, session: '550 no' if 'r1@' in line else None})
    m = queued(h)
    m.run('-qq')
    assert [r for r in recipients(h) if 'relay' in r] == [ALL[0], ALL[2]], m.logs()
    assert re.search(r'\*\* r1@relay.test .*\]\* : SMTP error from remote mail server after RCPT TO:<r1@relay.test>: 550 no', m.log())


def test_frozen_messages_do_not_follow(smtp_server, queued):
    h = smtp_server()
    m = queued(h)
    frozen = m.queue()[1]
    m.run('-Mf', frozen)
    stays = re.search(r'r\d@relay\.test', m.run('-Mvh', frozen))[0]
    m.run('-qq')
    assert recipients(h) == [r for r in ALL if stays not in r] and h.sessions == 1, m.logs()


def test_daemon_takes_others_along(smtp_server, queued):
    """What waits for a host that was down is sent as soon as one message has found it up."""
    h = smtp_server()
    m = queued(h, n=20, main='worker_processes = 2')
    m.run('-odq', '-f', 'a@b.test', 'first@relay.test', input='\nx\n')
    m.run('-q', '-odqs')
    m.daemon = True
    m.arguments = ['-qq1h']
    m.start()
    m.wait_log('Completed', count=21, patience=60)
    assert len(h.messages) == 21 and h.sessions <= 8, m.logs()
