"""Cut-through delivery, and callouts whose connection the message itself uses."""
from support.smtp import Client
from support.util import free_port


def cutting(martlet, port, options='', acl='', **kw):
    return martlet(smarthost=f'127.0.0.1::{port}', relay_to='relay.test : other.test',
                   acl_rcpt=f'{acl}  warn control = cutthrough_delivery{options}\n', main='acl_smtp_data = acl_data',
                   acl='acl_data:\n  deny condition = ${if match{$h_subject:}{refuse}}\n  accept\n', **kw)


def send(m, *recipients, data='Subject: x\r\n\r\nbody\r\n'):
    with Client(m.port) as c:
        return c.mail('a@b.test', *(recipients or ['x@relay.test']), data=data)


def verbs(server):
    return [line.split(':')[0].split(' ')[0] for line in server.commands]


def test_delivered_before_the_reply(martlet, smtp_server):
    s = smtp_server()
    m = cutting(martlet, s.port)
    code, _ = send(m)
    assert code == 250 and len(s.messages) == 1, 'the next host has it when the client hears 250'
    assert s.messages[0]['mail'].startswith('<a@b.test>')
    m.wait_log(r' >> x@relay\.test R=relay T=remote_smtp H=127\.0\.0\.1 \[127\.0\.0\.1\] C="250 kept"\n.* <= a@b\.test .*\n.* Completed$')
    m.wait_empty()
    assert m.spool_files() == []


def test_recipients_share_the_transaction(martlet, smtp_server):
    s = smtp_server()
    m = cutting(martlet, s.port)
    assert send(m, 'x@relay.test', 'y@other.test')[0] == 250
    assert verbs(s)[:5] == ['EHLO', 'MAIL', 'RCPT', 'RCPT', 'DATA'] and len(s.messages) == 1


def test_refused_recipient(martlet, smtp_server):
    s = smtp_server({'RCPT': '550 unknown'})
    m = cutting(martlet, s.port)
    assert send(m)[0] == 550
    m.wait_log(r'rejected RCPT <x@relay\.test>$', 'reject')


def test_refused_data_are_refused_to_the_client(martlet, smtp_server):
    s = smtp_server({'DOT': '554 looks like spam'})
    m = cutting(martlet, s.port)
    assert send(m) == (554, 'looks like spam')
    m.wait_empty()
    m.wait_log(r'rejected from cutthrough after DATA: R=relay T=remote_smtp H=127\.0\.0\.1 \[127\.0\.0\.1\] C="554 looks like spam"$')


def test_deferred_data_are_queued(martlet, smtp_server):
    s = smtp_server({'DOT': ['451 later', None]})
    m = cutting(martlet, s.port)
    assert send(m)[0] == 250
    m.wait_log(r' tmp-reject from cutthrough after DATA: .*C="451 later"$')
    m.wait_log(r' => x@relay\.test ')
    assert len(s.messages) == 1


def test_deferred_data_passed_on(martlet, smtp_server):
    s = smtp_server({'DOT': '451 later'})
    m = cutting(martlet, s.port, '/defer=pass')
    assert send(m) == (451, 'later')
    m.wait_empty()


def test_deferred_recipient_passed_on(martlet, smtp_server):
    s = smtp_server({'RCPT': '452 busy'})
    m = cutting(martlet, s.port, '/defer=pass')
    assert send(m) == (452, 'busy')


def test_nobody_there_queues(martlet):
    m = cutting(martlet, free_port())
    assert send(m)[0] == 250
    m.wait_log(r' == x@relay\.test ')


def test_a_local_recipient_cancels_it(martlet, smtp_server):
    s = smtp_server()
    m = cutting(martlet, s.port)
    assert send(m, 'x@relay.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')
    m.wait_log(r' => x@relay\.test ')
    m.wait_empty()
    assert len(s.messages) == 1, 'and exactly one copy goes out'
    assert ' >> ' not in m.log()


def test_what_the_acl_refuses_goes_nowhere(martlet, smtp_server):
    s = smtp_server()
    m = cutting(martlet, s.port)
    assert send(m, data='Subject: refuse\r\n\r\nx\r\n')[0] == 550
    assert s.messages == [] and 'DATA' not in verbs(s)


def test_reset_and_quit_end_the_transaction(martlet, smtp_server):
    s = smtp_server()
    m = cutting(martlet, s.port)
    with Client(m.port) as c:
        c.ehlo()
        for _ in range(2):
            c.expect(250, 'MAIL FROM:<a@b.test>')
            c.expect(250, 'RCPT TO:<x@relay.test>')
            c.expect(250, 'RSET')
        c.expect(221, 'QUIT')
    assert s.messages == []


def test_a_large_message(martlet, smtp_server):
    s = smtp_server()
    m = cutting(martlet, s.port)
    body = 'Subject: large\r\n\r\n' + ('x' * 70 + '\r\n.dot\r\n') * 4000
    assert send(m, data=body)[0] == 250
    got = s.messages[0]['data']
    assert (got if isinstance(got, bytes) else got.encode()).count(b'\n.dot') == 4000
    m.wait_empty()
    assert m.spool_files() == []


def test_chunking_goes_the_usual_way(martlet, smtp_server):
    s = smtp_server()
    m = cutting(martlet, s.port)
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<x@relay.test>')
        c.send('BDAT 17 LAST\r\nSubject: x\r\n\r\nb\r\n')
        assert c.reply()[0] == 250
    m.wait_log(r' => x@relay\.test ')
    assert len(s.messages) == 1


def test_callout_hold(martlet, smtp_server):
    """The transaction of the callouts is the delivery's."""
    s = smtp_server()
    m = martlet(smarthost=f'127.0.0.1::{s.port}', main='worker_processes = 1',
                acl_rcpt='  deny !verify = recipient/callout=use_sender,hold,no_cache\n')
    assert send(m, 'x@relay.test', 'y@relay.test')[0] == 250
    m.wait_log(r' (=|-)> [xy]@relay\.test ', count=2)
    assert verbs(s)[:5] == ['EHLO', 'MAIL', 'RCPT', 'RCPT', 'DATA'] and s.sessions == 1


def test_debian_exim(martlet, exim):
    e = exim(acl='  deny local_parts = gone\n  message = gone away')
    m = martlet(
        smarthost=f'127.0.0.1::{e.port}', relay_to='exim.test', acl_rcpt='  warn control = cutthrough_delivery\n')
    assert send(m, 'u1@exim.test')[0] == 250
    assert send(m, 'gone@exim.test')[0] == 550
    m.wait_log(r' >> u1@exim\.test .*C="250.*OK id=')
