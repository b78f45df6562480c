"""Callouts: Martlet asks the host that takes an address's mail before it accepts the address."""
import threading
import time

import pytest

from support.smtp import Client
from support.util import free_port


def callout(martlet, port, options='', what='recipient', **kw):
    """A Martlet that relays relay.test and elsewhere.test to a port of this machine, with a callout at RCPT."""
    return martlet(smarthost=f'127.0.0.1::{port}', relay_to='relay.test : elsewhere.test',
                   acl_rcpt=f'  deny !verify = {what}/callout={options}\n', **kw)


def transaction(m, recipient='x@relay.test', sender='a@b.test'):
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, f'MAIL FROM:<{sender}>')
        return c.cmd(f'RCPT TO:<{recipient}>')


def asked(server, verb):
    return [line for line in server.commands if line.startswith(verb)]


def test_recipient_accepted_and_refused(martlet, smtp_server):
    s = smtp_server({'RCPT': lambda line, _: '550 nobody of that name' if 'bad' in line else None})
    m = callout(martlet, s.port)
    assert transaction(m)[0] == 250
    code, text = transaction(m, 'bad@relay.test')
    assert code == 550 and text == 'Callout verification failed:\n550 nobody of that name'
    assert s.commands[:3] == ['EHLO mx.martlet.test', 'MAIL FROM:<>', 'RCPT TO:<x@relay.test>']
    m.wait_log(r'rejected RCPT <bad@relay\.test>: 127\.0\.0\.1 \[127\.0\.0\.1\] : SMTP error from remote mail server after '
               r'RCPT TO:<bad@relay\.test>: 550 nobody of that name$', 'reject')


def test_answers_are_remembered(martlet, smtp_server):
    s = smtp_server({'RCPT': lambda line, _: '550 no' if 'bad' in line else None})
    m = callout(martlet, s.port)
    for _ in range(3):
        assert transaction(m)[0] == 250
        assert transaction(m, 'bad@relay.test')[0] == 550
    assert transaction(m, 'bad@relay.test')[1] == 'Previous (cached) callout verification failure'
    assert asked(s, 'RCPT') == ['RCPT TO:<x@relay.test>', 'RCPT TO:<bad@relay.test>']


def test_no_cache(martlet, smtp_server):
    s = smtp_server()
    m = callout(martlet, s.port, 'no_cache')
    assert [transaction(m)[0] for _ in range(2)] == [250, 250]
    assert len(asked(s, 'RCPT')) == 2


def test_temporary_answers_defer_and_are_forgotten(martlet, smtp_server):
    s = smtp_server({'RCPT': ['450 later', None]})
    m = callout(martlet, s.port)
    assert transaction(m) == (451, 'Could not complete recipient verify callout')
    assert transaction(m)[0] == 250


def test_nobody_there(martlet):
    m = callout(martlet, free_port())
    assert transaction(m)[0] == 451
    m.wait_log(r'temporarily rejected RCPT <x@relay\.test>: Could not complete recipient verify callout: 127\.0\.0\.1 '
               r'\[127\.0\.0\.1\] : Connection refused$', 'reject')


def test_defer_ok(martlet):
    m = callout(martlet, free_port(), 'defer_ok')
    assert transaction(m)[0] == 250


def test_random_local_part(martlet, smtp_server):
    s = smtp_server()
    m = callout(martlet, s.port, 'random')
    assert transaction(m)[0] == 250
    assert transaction(m, 'other@relay.test')[0] == 250
    assert len(asked(s, 'RCPT')) == 1 and '-testing@relay.test>' in asked(s, 'RCPT')[0]


def test_random_refused_then_the_address(martlet, smtp_server):
    s = smtp_server({'RCPT': lambda line, _: '550 no' if 'testing' in line else None})
    m = callout(martlet, s.port, 'random')
    assert transaction(m)[0] == 250
    assert [line.split('<')[1] for line in asked(s, 'RCPT')][1:] == ['x@relay.test>']
    assert s.commands.count('RSET') == 1


def test_postmaster(martlet, smtp_server):
    s = smtp_server({'RCPT': lambda line, _: '550 no such' if 'postmaster@' in line else None})
    m = callout(martlet, s.port, 'postmaster', what='sender')
    code, text = transaction(m, 'u0@local.test', 'me@elsewhere.test')
    assert code == 550 and 'Postmaster verification failed while checking <me@elsewhere.test>' in text
    assert 'Sent:     RCPT TO:<postmaster@elsewhere.test>' in text and text.endswith('Sender verify failed')
    assert '(result of earlier verification reused).' in transaction(m, 'u0@local.test', 'other@elsewhere.test')[1]
    assert len(asked(s, 'RCPT')) == 2


def test_full_postmaster(martlet, smtp_server):
    s = smtp_server({'RCPT': lambda line, _: '550 no such' if 'postmaster@' in line else None})
    m = callout(martlet, s.port, 'fullpostmaster,postmaster_mailfrom=probe@local.test,fullpostmaster', what='sender')
    assert transaction(m, 'u0@local.test', 'me@elsewhere.test')[0] == 250
    assert asked(s, 'RCPT')[-1] == 'RCPT TO:<postmaster>'


def test_empty_sender_refused(martlet, smtp_server):
    s = smtp_server({'MAIL': '550 no bounces here'})
    m = callout(martlet, s.port, what='sender')
    code, text = transaction(m, 'u0@local.test', 'me@elsewhere.test')
    assert code == 550 and text.startswith('Callback setup failed while verifying <me@elsewhere.test>\n')
    assert '(result of an earlier callout reused).' in transaction(m, 'u0@local.test', 'you@elsewhere.test')[1]
    assert len(asked(s, 'MAIL')) == 1


def test_senders_of_the_probe(martlet, smtp_server):
    s = smtp_server()
    m = callout(martlet, s.port, 'use_sender')
    assert [transaction(m, sender=f'{n}@b.test')[0] for n in 'ab'] == [250, 250]
    p = callout(martlet, s.port, 'use_postmaster', main='qualify_domain = our.test')
    assert transaction(p)[0] == 250
    assert asked(s, 'MAIL') == ['MAIL FROM:<a@b.test>', 'MAIL FROM:<b@b.test>', 'MAIL FROM:<postmaster@our.test>']


def test_the_second_host_answers(martlet, smtp_server):
    silent, s = free_port(), smtp_server()
    m = martlet(smarthost=f'"127.0.0.1::{silent} : 127.0.0.1::{s.port}"', acl_rcpt='  deny !verify = recipient/callout\n',
                relay_to='relay.test')
    assert transaction(m)[0] == 250


def test_a_silent_host_stalls_nobody_else(martlet, smtp_server):
    """The callout waits for a banner; another session of the same (only) worker goes on meanwhile."""
    silent = smtp_server({'CONNECT': lambda *_: time.sleep(120)})
    m = callout(martlet, silent.port, '5s,maxwait=5s', main='worker_processes = 1')
    with Client(m.port) as waiting, Client(m.port) as other:
        waiting.ehlo()
        waiting.expect(250, 'MAIL FROM:<a@b.test>')
        waiting.send('RCPT TO:<x@relay.test>\r\n')
        other.ehlo()
        for _ in range(5):
            other.expect(250, 'NOOP')
        assert waiting.reply() == (451, 'Could not complete recipient verify callout')
    m.wait_log(r': 127\.0\.0\.1 \[127\.0\.0\.1\] : SMTP timeout after initial connection$', 'reject')


def test_output_is_flushed_before_a_callout(martlet, smtp_server):
    """The answer to MAIL reaches the client before the called host is asked about RCPT."""
    read = threading.Event()
    s = smtp_server({'RCPT': lambda *_: '250 ok' if read.wait(30) else '450 nothing was flushed'})
    m = callout(martlet, s.port)
    with Client(m.port) as c:
        c.ehlo()
        c.send('MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\n')
        assert c.reply() == (250, 'OK')
        read.set()
        assert c.reply()[0] == 250


def test_header_sender(martlet, smtp_server):
    s = smtp_server({'RCPT': lambda line, _: '550 no' if 'bad' in line else None})
    m = martlet(smarthost=f'127.0.0.1::{s.port}', main='acl_smtp_data = acl_data',
                acl='acl_data:\n  require verify = header_sender/callout=mailfrom=probe@local.test\n  accept\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='From: good@elsewhere.test\r\n\r\nx\r\n')[0] == 250
        assert c.mail('a@b.test', 'u0@local.test', data='From: bad@elsewhere.test\r\n\r\nx\r\n')[0] == 550
    assert asked(s, 'MAIL') == ['MAIL FROM:<probe@local.test>'] * 2


def test_variables(martlet, smtp_server):
    s = smtp_server({'RCPT': '550 no'})
    m = martlet(smarthost=f'127.0.0.1::{s.port}', relay_to='relay.test',
                acl_rcpt='  deny !verify = recipient/callout=no_cache\n'
                         '       message = $recipient_verify_failure: $acl_verify_message\n')
    assert transaction(m) == (550, 'recipient: Callout verification failed:\n550 no')


def test_size_and_authentication_are_passed(martlet, smtp_server):
    s = smtp_server()
    m = callout(martlet, s.port)
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> SIZE=5000')
        c.expect(250, 'RCPT TO:<x@relay.test>')
    assert asked(s, 'MAIL') == ['MAIL FROM:<> SIZE=6024']


@pytest.mark.parametrize('option, text', [
    ('recipient/callout=mailfrom=a@b', '"mailfrom" is allowed as a callout option only for verify=header_sender'),
    ('sender/callout=use_sender', '"use_sender" is for recipients'),
    ('recipient/callout=soon', "'callout' requires a time"),
])
def test_errors_in_the_configuration(martlet, option, text):
    m = martlet(daemon=False, acl_rcpt=f'  deny !verify = {option}\n', allow_panic='.')
    done = m.run('-bV', check=False)
    assert done.returncode != 0 and text in done.stdout + (done.stderr or '')


def test_debian_exim(martlet, exim):
    e = exim(acl='  deny local_parts = gone\n  message = gone away')
    m = martlet(smarthost=f'127.0.0.1::{e.port}', relay_to='exim.test', acl_rcpt='  deny !verify = recipient/callout=random\n')
    assert transaction(m, 'gone@exim.test')[0] == 250, 'all others are accepted, so that nothing more is asked'
    n = martlet(smarthost=f'127.0.0.1::{e.port}', relay_to='exim.test', acl_rcpt='  deny !verify = recipient/callout\n')
    assert transaction(n, 'u1@exim.test')[0] == 250
    assert transaction(n, 'gone@exim.test')[1] == 'Callout verification failed:\n550 gone away'


def test_debian_postfix(martlet, postfix):
    p = postfix()
    m = martlet(smarthost=f'127.0.0.1::{p.port}', relay_to='postfix.test', acl_rcpt='  deny !verify = recipient/callout\n')
    assert transaction(m, 'u1@postfix.test')[0] == 250
    code, text = transaction(m, 'nobody-here@postfix.test')
    assert code == 550 and 'User unknown' in text
