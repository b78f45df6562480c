"""PRDR, early pipelining, XCLIENT, WELLKNOWN, ETRN: the server's side."""
import glob
import os
import re
import socket
import subprocess

import pytest

from support.smtp import Client
from support.util import maildir, read, wait_for, write

PRDR_MAIN = 'prdr_enable\nacl_smtp_data_prdr = acl_prdr\nacl_smtp_data = acl_data\nacl_smtp_mail = acl_mail\n'
PRDR_ACL = '''
acl_mail:
  accept set acl_m_asked = $prdr_requested

acl_prdr:
  deny    local_parts = u4
          message = 554 5.7.1 not for me: $h_subject:
          log_message = because
  deny    local_parts = u5
  defer   local_parts = u6
  discard local_parts = u7
  accept  local_parts = u1
          message = gladly
  accept

acl_data:
  deny  condition = ${if match{$h_subject:}{bad}}
  accept add_header = X-Asked: $acl_m_asked
'''


# In an ACL: stops until open_gate().
GATE = 'condition = ${run{/bin/sh -c "read x <@DIR@/gate"}{yes}{yes}}\n'


def make_gate(m):
    os.mkfifo(f'{m.directory}/gate')
    os.chmod(f'{m.directory}/gate', 0o666)


def open_gate(m):
    """Waits for one who stands before it."""
    with open(f'{m.directory}/gate', 'w') as f:
        f.write('go\n')


def queue_is_empty(m):
    return not glob.glob(m.outside('spool/input/**/*-[HD]'), recursive=True)


def prdr(c, *users, subject='x', chunked=False):
    """The replies after the data: a list of (code, text), the last one is the final one."""
    c.expect(250, 'MAIL FROM:<a@b.test> PRDR')
    for u in users:
        c.expect(250, f'RCPT TO:<{u}@local.test>')
    text = f'Subject: {subject}\r\n\r\ntext\r\n'
    if chunked:
        c.send(f'BDAT {len(text)} LAST\r\n{text}')
    else:
        c.expect(354, 'DATA')
        c.send(text + '.\r\n')
    first = c.reply()
    return [c.reply() for _ in range(len(users) + 1)] if first[0] == 353 else [first]


@pytest.mark.parametrize('chunked', [False, True])
def test_prdr(martlet, chunked):
    m = martlet(main=PRDR_MAIN, acl=PRDR_ACL)
    with Client(m.port) as c:
        assert 'PRDR' in c.ehlo()
        got = prdr(c, 'u0', 'u1', 'u4', 'u5', 'u6', 'u7', 'u2', chunked=chunked)
        assert got[:7] == [(250, 'PRDR R=<u0@local.test> acceptance'), (250, 'gladly'), (554, '5.7.1 not for me: x'),
                           (550, 'PRDR R=<u5@local.test> refusal'), (450, 'PRDR R=<u6@local.test> temporary refusal'),
                           (250, 'PRDR R=<u7@local.test> discard'), (250, 'PRDR R=<u2@local.test> acceptance')]
        assert re.fullmatch(r'id=\S+ message accepted for some recipients', got[-1][1]) and got[-1][0] == 250
        wait_for(lambda: all(maildir(f'{m.directory}/mail/{u}') for u in ('u0', 'u1', 'u2')), m.logs)
        assert b'X-Asked: yes' in maildir(f'{m.directory}/mail/u0')[0]
        assert not any(maildir(f'{m.directory}/mail/{u}') for u in ('u4', 'u5', 'u6', 'u7'))
        log = m.log()
        assert 'PRDR R=<u4@local.test> refusal: because' in log
        assert re.search(r'<= a@b\.test .* PRDR ' + ('K ' if chunked else '') + 'S=', log), log
        # DATA decides for all.
        assert [x[0] for x in prdr(c, 'u0', 'u1', subject='bad', chunked=chunked)] == [250, 250, 550]
        # Nobody is left.
        assert [x[0] for x in prdr(c, 'u4', 'u5', chunked=chunked)] == [554, 550, 550]
        assert [x[0] for x in prdr(c, 'u4', 'u6', chunked=chunked)] == [554, 450, 250]
        # One recipient, or PRDR not asked for: no replies for each.
        assert prdr(c, 'u4', chunked=chunked)[0][0] == 250
        assert c.mail('a@b.test', 'u4', 'u5', hello=False)[0] in (250, 501)
        assert c.cmd('RSET')[0] == 250
        for bad in ['PRDR PRDR', 'PRDR=1']:
            assert c.cmd('MAIL FROM:<a@b.test> ' + bad)[0] == 501
    wait_for(lambda: queue_is_empty(m), m.logs)
    with Client(m.port) as c:
        c.expect(250, 'HELO x')
        assert c.cmd('MAIL FROM:<a@b.test> PRDR')[0] == 501


def test_prdr_many_recipients(martlet):
    m = martlet(main=PRDR_MAIN + 'recipients_max = 2000\nqueue_only\n', acl=PRDR_ACL, acl_rcpt='  accept')
    with Client(m.port) as c:
        c.ehlo()
        users = [f'x{n}' for n in range(500)]
        c.send('MAIL FROM:<a@b.test> PRDR\r\n' + ''.join(f'RCPT TO:<{u}@local.test>\r\n' for u in users) + 'DATA\r\n')
        assert [c.reply()[0] for _ in range(501)] == [250] * 501 and c.reply()[0] == 354
        c.send('Subject: x\r\n\r\n.\r\n')
        assert c.reply()[0] == 353
        assert [c.reply()[0] for _ in range(501)] == [250] * 501


def test_prdr_client_goes_away(martlet):
    m = martlet(main=PRDR_MAIN, acl=PRDR_ACL.replace('acl_prdr:\n', 'acl_prdr:\n  warn local_parts = u0\n       ' + GATE))
    make_gate(m)
    c = Client(m.port)
    c.ehlo()
    c.expect(250, 'MAIL FROM:<a@b.test> PRDR')
    c.expect(250, 'RCPT TO:<u0@local.test>')
    c.expect(250, 'RCPT TO:<u1@local.test>')
    c.expect(354, 'DATA')
    c.send('Subject: x\r\n\r\n.\r\n')
    assert c.reply()[0] == 353
    c.reset()
    open_gate(m)
    m.wait_log(r'lost|Completed')
    wait_for(lambda: queue_is_empty(m), m.logs)


def test_prdr_exim_is_the_client(martlet, exim):
    m = martlet(main=PRDR_MAIN, acl=PRDR_ACL)
    e = exim(smarthost=f'127.0.0.1::{m.port}', client='hosts_try_prdr = *')
    with Client(e.port) as c:
        assert c.mail('a@exim.test', 'u0@local.test', 'u4@local.test', 'u6@local.test', 'u2@local.test')[0] == 250
    wait_for(lambda: maildir(f'{m.directory}/mail/u0') and maildir(f'{m.directory}/mail/u2'), lambda: m.logs() + e.log())
    wait_for(lambda: '** u4@local.test' in e.log() and '== u6@local.test' in e.log(), e.log)
    assert re.search(r'=> u0@local\.test .* PRDR ', e.log()), e.log()
    assert re.search(r'\*\* u4@local\.test .*not for me', e.log()), e.log()


# ---- early pipelining ----

def test_early_pipelining(martlet):
    m = martlet(main='log_selector = +pipelining\npipelining_connect_advertise_hosts = 127.0.0.1\n'
                     'pipelining_connect_legacy_hosts = 127.0.0.1\n', interfaces='127.0.0.1 : 127.0.0.2')
    with Client(m.port) as c:
        keywords = c.ehlo()
        assert {'PIPECONNECT', 'PIPE_CONNECT', 'X_PIPE_CONNECT'} <= set(keywords)
        c.expect(250, 'MAIL FROM:<first@b.test>')
        c.expect(250, 'RCPT TO:<u0@local.test>')
        c.expect(354, 'DATA')
        assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
    assert ' P=esmtp L.- S=' in m.wait_log(r'<= first@b\.test.*')[0]
    c = Client(m.port, banner=False)
    c.send('EHLO early.test\r\nMAIL FROM:<second@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\n')
    assert [c.reply()[0] for _ in range(5)] == [220, 250, 250, 250, 354]
    assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
    assert re.search(r' P=esmtp L[*.] S=', m.wait_log(r'<= second@b\.test.*')[0])
    c.close()


def test_early_input_from_others(martlet):
    m = martlet(main='pipelining_connect_advertise_hosts = 192.0.2.1\n'
                     'acl_smtp_connect = acl_slow\n', acl='acl_slow:\n  accept ' + GATE)
    make_gate(m)
    c = Client(m.port, banner=False)
    c.send('EHLO early.test\r\n')
    open_gate(m)
    assert c.reply()[0] == 554
    m.wait_log('input sent without waiting for greeting')
    c.close()
    c = Client(m.port, banner=False)
    open_gate(m)
    assert c.reply()[0] == 220 and 'PIPECONNECT' not in c.ehlo()
    c.close()


def test_early_starttls_takes_no_commands_along(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'))
    c = Client(m.port, banner=False)
    c.send('EHLO early.test\r\nSTARTTLS\r\nMAIL FROM:<x@b.test>\r\n')
    codes = []
    try:
        while True:
            codes.append(c.reply()[0])
    except Exception:
        pass
    assert codes in ([220, 250, 554], [220, 250, 220]), codes
    c.close()


def test_exim_pipelines_early(martlet, exim):
    m = martlet(main='log_selector = +pipelining\n')
    e = exim(smarthost=f'127.0.0.1::{m.port}', client='hosts_pipe_connect = *\n  hosts_try_chunking =')
    for n in range(2):
        with Client(e.port) as c:
            assert c.mail(f'a{n}@exim.test', 'u0@local.test')[0] == 250
        wait_for(lambda: len(maildir(f'{m.directory}/mail/u0')) == n + 1, lambda: m.logs() + e.log())
    assert ' L' in m.wait_log(r'<= a1@exim\.test.*')[0]


# ---- XCLIENT ----

XCLIENT = 'hosts_xclient = 127.0.0.1\nlog_selector = +proxy +incoming_port\n'
SEEN = '  warn logwrite = seen [$proxy_local_address]:$proxy_local_port [$proxy_external_address]:$proxy_external_port $proxy_session\n  accept'


def test_xclient(martlet):
    m = martlet(main=XCLIENT, acl_rcpt=SEEN)
    with Client(m.port) as c:
        own = c.sock.getsockname()[1]
        assert c.ehlo()['XCLIENT'] == ['ADDR', 'PORT', 'NAME', 'DESTADDR', 'DESTPORT', 'LOGIN']
        assert c.cmd('XCLIENT NAME=x.test')[0] == 501
        assert c.cmd('XCLIENT NAME=real.test ADDR=192.0.2.9 PORT=4242 DESTADDR=198.51.100.1 DESTPORT=25 LOGIN=joe+2Bx')[0] == 220
        assert c.cmd('MAIL FROM:<a@b.test>') == (503, 'HELO or EHLO required')
        assert 'real.test [192.0.2.9]' in c.cmd('EHLO inner.test')[1] and c.ehlo('inner.test')
        assert c.mail('a@b.test', 'u0@local.test', hello=False)[0] == 250
        line = m.wait_log(r'<= a@b\.test.*')[0]
        assert 'H=real.test (inner.test) [192.0.2.9]:4242 P=esmtpa A=xclient:joe+x PRX=127.0.0.1 ' in line, line
        assert f'seen [127.0.0.1]:{own} [198.51.100.1]:25 yes' in m.log()


def test_xclient_refused(martlet):
    m = martlet(main=XCLIENT + 'smtp_max_synprot_errors = 100\nsmtp_accept_max_nonmail = 100\n', interfaces='127.0.0.1 : 127.0.0.2')
    with Client(m.port, address='127.0.0.2', source='127.0.0.2') as c:
        assert 'XCLIENT' not in c.ehlo()
        assert c.cmd('XCLIENT ADDR=192.0.2.9 PORT=4242')[0] == 501
    with Client(m.port) as c:
        assert c.cmd('XCLIENT ADDR=192.0.2.9 PORT=4242')[0] == 501
        c.ehlo()
        for bad in ['', 'ADDR=192.0.2.9', 'PORT=1', 'ADDR=192.0.2.9 PORT=65536', 'ADDR=192.0.2.9 PORT=x', 'ADDR=300.1.1.1 PORT=1', 'ADDR=192.0.2.9 PORT=1 HELO=x',
                    'ADDR=192.0.2.9 PORT=1 NAME=', 'ADDR=192.0.2.9 PORT=1 NAME', 'ADDR=192.0.2.9 PORT=1 NAME=a+0Ab', 'ADDR=192.0.2.9 PORT=1 LOGIN=a+00',
                    'ADDR=192.0.2.9 PORT=1 NAME=a;b', 'ADDR=[UNAVAILABLE] PORT=1']:
            assert c.cmd('XCLIENT ' + bad)[0] == 501, bad
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('XCLIENT ADDR=192.0.2.9 PORT=4242') == (503, 'mail transaction in progress')
        c.expect(250, 'RSET')
        assert c.cmd('XCLIENT ADDR=IPV6:2001:db8::9 PORT=4242 NAME=[UNAVAILABLE]')[0] == 220
        assert '[2001:db8::9]' in c.cmd('EHLO x')[1]


# ---- WELLKNOWN ----

def test_wellknown(martlet):
    m = martlet(main='wellknown_advertise_hosts = *\nacl_smtp_wellknown = acl_known\n', acl='''
acl_known:
  deny   condition = ${if eq{$smtp_command_argument}{none}}
  accept condition = ${if eq{$smtp_command_argument}{nothing}}
  accept control = wellknown/${lookup {${xtextd:$smtp_command_argument}} dsearch,key=path,filter=file,ret=full {@DIR@/known}}
''')
    text = 'Contact: mailto:a@b.test\n+ = é\n' + 'x' * 300 + '\n'
    os.mkdir(f'{m.directory}/known')
    write(f'{m.directory}/known/security.txt', text)
    with Client(m.port) as c:
        assert 'WELLKNOWN' in c.ehlo()
        code, reply = c.cmd('WELLKNOWN security.txt')
        lines = reply.split('\n')
        assert code == 250 and lines[0] == f'SIZE={len(text.encode())}' and all(len(x) < 80 for x in lines)
        raw = re.sub(rb'\+([0-9A-F]{2})', lambda x: bytes([int(x.group(1), 16)]), ''.join(lines[1:]).encode())
        assert raw.decode() == text
        assert c.cmd('WELLKNOWN none')[0] == 550
        assert c.cmd('WELLKNOWN nothing')[0] == 504
        assert c.cmd('WELLKNOWN other.txt')[0] == 451
        assert c.cmd('WELLKNOWN ../conf')[0] in (451, 550)


def test_wellknown_is_denied_by_default(martlet):
    m = martlet()
    with Client(m.port) as c:
        assert 'WELLKNOWN' not in c.ehlo()
        assert c.cmd('WELLKNOWN x')[0] == 550


# ---- ETRN ----

def test_etrn_command(martlet):
    m = martlet(main='acl_smtp_etrn = acl_etrn\nsmtp_accept_max_nonmail = 10000\nsmtp_etrn_command = /bin/sh -c \'read x <@DIR@/gate; echo "\\$0" "\\$1" >>@DIR@/ran\' $domain $sender_host_address\n',
                acl='acl_etrn:\n  deny condition = ${if eq{$smtp_command_argument}{no}}\n  accept\n')
    make_gate(m)
    with Client(m.port) as c:
        assert 'ETRN' in c.ehlo()
        assert c.cmd('ETRN no')[0] == 458
        assert c.cmd('ETRN one; two')[0] == 250
        assert c.cmd('ETRN one; two') == (458, 'Already processing one; two')
        open_gate(m)
        wait_for(lambda: read(f'{m.directory}/ran') == 'one; two 127.0.0.1\n', m.logs)
        wait_for(lambda: c.cmd('ETRN one; two')[0] == 250, m.logs)
        open_gate(m)
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('ETRN x')[0] == 503
    assert 'ETRN one; two received from (client.test) [127.0.0.1]' in m.log()


def test_etrn_command_is_not_the_clients(martlet):
    m = martlet(main='acl_smtp_etrn = accept\nsmtp_etrn_command = $domain\n', allow_panic='Tainted arg 0')
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd('ETRN /bin/true') == (458, 'Internal failure')


def test_etrn_without_command(martlet):
    m = martlet(main='acl_smtp_etrn = accept\n')
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd('ETRN local.test')[0] == 501


# ---- protocol_detail ----

@pytest.mark.parametrize('tls', [False, True])
def test_reset_after_quit(martlet, authority, tls):
    """A client that resets the connection right after its QUIT; the ACL keeps the answer back until it has."""
    main = 'acl_smtp_quit = acl_quit\nlog_selector = +smtp_connection{}\n'
    acl = 'acl_quit:\n  warn condition = ${if exists{@DIR@/gone}{no}{yes}}\n       logwrite = quit seen\n       ' + GATE + '  accept\n'
    for selector, wanted in ((' +protocol_detail', True), ('', False)):
        m = martlet(main=main.format(selector), acl=acl, tls=authority.issue('mx.martlet.test') if tls else None)
        make_gate(m)
        c = Client(m.port)
        c.ehlo()
        if tls:
            c.starttls()
            c.ehlo()
        c.send('QUIT\r\n')
        m.wait_log('quit seen')
        c.reset()
        open_gate(m)
        m.wait_log('closed by QUIT')
        assert ('TCP RST after QUIT from (client.test) [127.0.0.1]' in m.log()) == wanted, m.log()
        # Who waits for the answer is no matter for the log.
        write(f'{m.directory}/gone', '')
        with Client(m.port) as c:
            c.ehlo()
            assert c.cmd('QUIT')[0] == 221 and c.at_end()
        m.wait_log('closed by QUIT', count=2)
        assert m.log().count('TCP RST') == int(wanted)
