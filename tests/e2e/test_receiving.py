"""What the server's extensions must keep among each other and with other people's programs (docs/internals/smtp-server.md lists all)."""
import os
import re

import pytest

from support.postfix import Source
from support.smtp import Client, Closed
from support.util import maildir, read, wait_for

PRDR = 'prdr_enable\nacl_smtp_data_prdr = acl_prdr\n'


def prdr_replies(c, n):
    assert c.reply()[0] == 353
    return [c.reply()[0] for _ in range(n + 1)]


# ---- F07 ----

def test_notice_parameters_survive_a_restart(martlet, smtp_server):
    s = smtp_server({'RCPT': ['450 not now', None]}, keywords=('PIPELINING', 'DSN'))
    m = martlet(main='queue_only\ndsn_advertise_hosts = *\n', smarthost=f'127.0.0.1::{s.port}', relay_from='127.0.0.1', arguments=[])
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> RET=HDRS ENVID=x+2By')
        c.expect(250, 'RCPT TO:<u@relay.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+2Blast@b.test')
        c.expect(354, 'DATA')
        assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
    for _ in range(2):
        m.terminate()
        m.start()
        m.run('-qff')
    wait_for(lambda: s.messages, m.logs)
    for wanted in ('MAIL FROM:<a@b.test> ', 'RCPT TO:<u@relay.test> '):
        said = [x for x in s.commands if x.startswith(wanted)]
        assert len(said) == 2
        for line in said:
            for word in ('RET=HDRS', 'ENVID=x+2By') if wanted[0] == 'M' else ('NOTIFY=SUCCESS,DELAY', 'ORCPT=rfc822;first+2Blast@b.test'):
                assert word in line.split(), line


# ---- F13 ----

def test_exim_is_early_the_second_time(martlet, exim):
    """Debian's Exim and we agree about it in both logs."""
    m = martlet(main='log_selector = +pipelining\n')
    e = exim(smarthost=f'127.0.0.1::{m.port}', client='hosts_pipe_connect = *\n  hosts_try_chunking =', log='+pipelining')
    for n in range(2):
        with Client(e.port) as c:
            assert c.mail(f'a{n}@exim.test', 'u0@local.test')[0] == 250
        wait_for(lambda: len(maildir(f'{m.directory}/mail/u0')) == n + 1, lambda: m.logs() + e.log())
        wait_for(lambda: e.log().count(' Completed') == n + 1, e.log)
    assert re.search(r' L\. ', m.wait_log(r'<= a0@exim\.test.*')[0]), m.log()
    assert re.search(r' L\* ', m.wait_log(r'<= a1@exim\.test.*')[0]), m.log()
    assert re.findall(r'=> u0@local\.test .* (L\*?) ', e.log()) == ['L', 'L*'], e.log()


def test_early_sender_behind_a_connect_acl(martlet):
    """The connect ACL decides as ever; what was sent ahead is answered only when it lets the client in."""
    m = martlet(main='acl_smtp_connect = acl_connect\n', acl='acl_connect:\n  deny hosts = 127.0.0.9\n       message = not you\n  accept\n')
    c = Client(m.port, banner=False, source='127.0.0.9')
    c.send('EHLO early.test\r\nMAIL FROM:<a@b.test>\r\n')
    assert c.reply() == (550, 'not you')
    with pytest.raises(Closed):
        c.reply()
    c.close()
    c = Client(m.port, banner=False)
    c.send('EHLO early.test\r\nMAIL FROM:<a@b.test>\r\n')
    assert [c.reply()[0] for _ in range(3)] == [220, 250, 250]
    c.close()


# ---- F19 ----

@pytest.mark.parametrize('chunked', [False, True])
def test_prdr_of_a_thousand(martlet, chunked):
    m = martlet(main=PRDR + 'queue_only\n', arguments=[], acl_rcpt='  accept', acl='''
acl_prdr:
  deny  condition = ${if match{$local_part}{\\N^x\\d*7$\\N}}
  defer condition = ${if match{$local_part}{\\N^x\\d*5$\\N}}
  accept
''')
    with Client(m.port) as c:
        c.ehlo()
        c.send('MAIL FROM:<a@b.test> PRDR\r\n' + ''.join(f'RCPT TO:<x{n}@local.test>\r\n' for n in range(1000)))
        assert [c.reply()[0] for _ in range(1001)] == [250] * 1001
        if chunked:
            c.send('BDAT 9\r\nSubject: BDAT 8 LAST\r\nx\r\n\r\nx\r\n')
            assert c.reply()[0] == 250
        else:
            c.expect(354, 'DATA')
            c.send('Subject: x\r\n\r\nx\r\n.\r\n')
        wanted = [550 if n % 10 == 7 else 450 if n % 10 == 5 else 250 for n in range(1000)]
        assert prdr_replies(c, 1000) == wanted + [250]
    wait_for(lambda: len(m.queue()) == 1, m.logs)
    header = [read(f) for f in m.spool_files() if f.endswith('-H')][0]
    assert header.count('@local.test\n') == 800 and '\nx7@' not in header and '\nx5@' not in header


def test_prdr_acl_uses_what_mail_found_out(martlet, nameserver):
    nameserver.add('b.test', 'TXT', 'v=spf1 ip4:192.0.2.9 -all').add('c.test', 'TXT', 'v=spf1 -all')
    m = martlet(resolver=nameserver.address, main=PRDR + 'acl_smtp_mail = acl_mail\nhosts_proxy = 127.0.0.1\n', acl='''
acl_mail:
  warn spf = pass : fail
  accept

acl_prdr:
  deny local_parts = u1
       spf = fail
  deny local_parts = u2
       condition = ${if eq{$spf_result}{fail}}
  accept
''')
    with Client(m.port, banner=False) as c:
        c.send('PROXY TCP4 192.0.2.9 192.0.2.1 1 25\r\n')
        assert c.reply()[0] == 220
        c.ehlo()
        for sender, wanted in (('a@b.test', [250, 250, 250, 250]), ('a@c.test', [250, 550, 550, 250])):
            c.expect(250, f'MAIL FROM:<{sender}> PRDR')
            for user in ('u0', 'u1', 'u2'):
                c.expect(250, f'RCPT TO:<{user}@local.test>')
            c.expect(354, 'DATA')
            c.send('From: a@b.test\r\n\r\nx\r\n.\r\n')
            assert prdr_replies(c, 3) == wanted


def test_conditions_of_the_whole_message_are_not_for_one_recipient(martlet):
    m = martlet(main=PRDR, acl='acl_prdr:\n  deny dmarc_status = reject\n  accept\n')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> PRDR')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(250, 'RCPT TO:<u1@local.test>')
        c.expect(354, 'DATA')
        c.send('From: a@b.test\r\n\r\nx\r\n.\r\n')
        assert prdr_replies(c, 2) == [450, 450, 250]
    m.wait_log(r'cannot test dmarc_status condition in PRDR ACL', count=2)
    assert not m.spool_files()


def test_prdr_goes_before_cutthrough(martlet, smtp_server):
    s = smtp_server()
    m = martlet(main=PRDR, smarthost=f'127.0.0.1::{s.port}', relay_from='127.0.0.1', acl_rcpt='  warn control = cutthrough_delivery\n',
                acl='acl_prdr:\n  deny local_parts = y\n  accept\n')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> PRDR')
        c.expect(250, 'RCPT TO:<x@relay.test>')
        c.expect(250, 'RCPT TO:<y@relay.test>')
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nx\r\n.\r\n')
        assert prdr_replies(c, 2) == [250, 550, 250]
    wait_for(lambda: s.messages, m.logs)
    assert s.messages[0]['rcpt'] == ['<x@relay.test>'] and len(s.messages) == 1
    m.wait_log(r'=> x@relay\.test')
    assert '>> ' not in m.log()


# ---- F23 ----

def test_resets_before_quit_are_lost_connections(martlet, authority):
    m = martlet(main='log_selector = +protocol_detail +lost_incoming_connection\n', tls=authority.issue('mx.martlet.test'))
    for stage in ('MAIL', 'DATA'):
        c = Client(m.port)
        c.ehlo()
        c.starttls()
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        if stage == 'DATA':
            c.expect(250, 'RCPT TO:<u0@local.test>')
            c.expect(354, 'DATA')
            c.send('Subject: x\r\n\r\nhalf')
        c.reset()
    m.wait_log(r'unexpected disconnection while reading SMTP command from \(client\.test\) \[127\.0\.0\.1\]')
    m.wait_log('lost while reading message data')
    assert 'RST' not in m.log() and not m.mail('u0')


def test_a_thousand_resets_leave_no_descriptor(martlet):
    m = martlet(main='log_selector = +protocol_detail +smtp_connection\n')

    def descriptors():
        return sum(len(os.listdir(f'/proc/{p}/fd')) for p in m.alive())
    with Client(m.port) as c:
        c.ehlo()
    wait_for(lambda: ' lost D=' in m.log(), m.logs)
    before = descriptors()
    for _ in range(1000):
        c = Client(m.port, banner=False)
        c.send('QUIT\r\n')
        c.reset()
    # Each of them is told of in one way or another.
    with Client(m.port) as c:
        c.ehlo()
        c.expect(221, 'QUIT')
    # A worker that was still starting may have some more now: a thousand would be another matter.
    wait_for(lambda: descriptors() <= before + 20, lambda: f'{descriptors()} descriptors, {before} before' + m.logs())


# ---- Postfix's smtp-source, and Postfix ----

@pytest.mark.parametrize('sessions', [1, 50])
def test_smtp_source(martlet, peers, sessions):
    m = martlet(main='smtp_connect_backlog = 100\n')
    Source.run(peers, m.port, 'u0@local.test', 100, sessions=sessions, length=20000)
    m.wait_mail('u0', 100, 120)
    m.wait_empty()


def test_exim_sends_chunks_and_asks_for_prdr(martlet, exim):
    m = martlet(main=PRDR + 'log_selector = +pipelining\n', acl='acl_prdr:\n  deny local_parts = u1\n       message = 554 5.7.1 not u1\n  accept\n')
    e = exim(smarthost=f'127.0.0.1::{m.port}', client='hosts_try_prdr = *\n  hosts_try_chunking = *')
    text = 'Subject: x\r\n\r\n' + '.dots\r\n..\r\n' * 20000
    with Client(e.port) as c:
        assert c.mail('a@exim.test', 'u0@local.test', 'u1@local.test', data=text)[0] == 250
    wait_for(lambda: m.mail('u0') and all(x in e.log() for x in ('=> u0@local.test', '** u1@local.test')), lambda: m.logs() + e.log())
    assert m.mail('u0')[0].endswith(b'\n\n' + b'.dots\n..\n' * 20000)
    assert re.search(r'<= a@exim\.test .* PRDR K ', m.log()), m.log()
    assert re.search(r'=> u0@local\.test .* PRDR K ', e.log()) and re.search(r'\*\* u1@local\.test .*5\.7\.1 not u1', e.log()), e.log()
    assert not m.mail('u1')


# ---- connections and addresses ----

def test_connections_that_wait_are_told(martlet):
    m = martlet(main='smtp_backlog_monitor = 2\nworker_processes = 1\nworker_connections = 1\n', arguments=[])
    first = Client(m.port)
    waiting = [Client(m.port, banner=False) for _ in range(4)]
    first.close()
    m.wait_log(rf'listen backlog [34] I=\[127\.0\.0\.1\]:{m.port}$')
    for c in waiting:
        assert c.reply()[0] == 220
        c.close()


def test_excess_angle_brackets(martlet):
    for option, code in (('', 501), ('strip_excess_angle_brackets\n', 250)):
        m = martlet(main=option)
        with Client(m.port) as c:
            c.ehlo()
            assert c.cmd('MAIL FROM:<<a@b.test>>')[0] == code
            if code == 250:
                c.expect(250, 'RCPT TO:<<<u0@local.test>>>')
                assert c.cmd('RCPT TO:<<u0@local.test>')[0] == 501
                c.expect(354, 'DATA')
                assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
                m.wait_log(r'<= a@b\.test ')
                assert b'Envelope-to: u0@local.test\n' in m.wait_mail('u0')[0]
