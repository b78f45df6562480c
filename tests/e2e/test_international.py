"""Internationalised mail: SMTPUTF8 (RFC 6531) from the client to the next hop, and reports about it (RFC 6533)."""
import email
import glob
import re

from support.smtp import Client
from support.util import maildir, read, wait_for

SENDER, RECIPIENT = 'jürgen@bücher.test', 'δοκιμή@παράδειγμα.test'
SENDER_A, RECIPIENT_A = 'xn--jrgen-kva@xn--bcher-kva.test', 'xn--jxalpdlp@xn--hxajbheg2az3al.test'
RELAY = 'relay.test : παράδειγμα.test'
UTF8 = ('PIPELINING', '8BITMIME', 'SIZE 50000000', 'SMTPUTF8')


def raw(text):
    """The wire's form of a text, for the helpers, which think in Latin-1."""
    return text.encode().decode('latin-1')


def send(port, sender=SENDER, recipients=(RECIPIENT,), parameters=' SMTPUTF8', header='Subject: päivää\r\n', rcpt=''):
    with Client(port) as c:
        assert 'SMTPUTF8' in c.ehlo()
        c.expect(250, raw(f'MAIL FROM:<{sender}>{parameters}'))
        for r in recipients:
            c.expect(250, raw(f'RCPT TO:<{r}>{rcpt}'))
        c.expect(354, 'DATA')
        code, text = c.body((header + '\r\ntext\r\n').encode())
        assert code == 250, text


def relaying(martlet, server, **kw):
    return martlet(smarthost=f'127.0.0.1::{server.port}', relay_to=RELAY, **kw)


def arrived(server, n=1):
    wait_for(lambda: len(server.messages) >= n, 'the next hop to get the message')
    return server.messages[n - 1]


def test_next_hop_that_knows_it(martlet, smtp_server):
    s = smtp_server(keywords=UTF8)
    m = relaying(martlet, s, main='log_selector = +sender_on_delivery')
    send(m.port)
    got = arrived(s)
    assert got['mail'].startswith(raw(f'<{SENDER}> ')) and got['mail'].endswith(' SMTPUTF8')
    assert got['rcpt'] == [raw(f'<{RECIPIENT}>')]
    assert 'with utf8esmtp' in got['data'].decode() and 'päivää' in got['data'].decode()
    m.wait_log(rf'<= {SENDER} H=.* P=utf8esmtp ')
    m.wait_log(rf'=> {RECIPIENT} F=<{SENDER}> ')


def test_ordinary_messages_go_without(martlet, smtp_server):
    s = smtp_server(keywords=UTF8)
    m = relaying(martlet, s)
    send(m.port, 'a@b.test', ['x@relay.test'], parameters='')
    assert 'SMTPUTF8' not in arrived(s)['mail']


def test_next_hop_that_does_not_know_it_gets_ascii(martlet, smtp_server):
    s = smtp_server()
    m = relaying(martlet, s, main='log_selector = +sender_on_delivery')
    send(m.port)
    got = arrived(s)
    assert got['mail'].startswith(f'<{SENDER_A}>') and 'SMTPUTF8' not in got['mail']
    assert got['rcpt'] == [f'<{RECIPIENT_A}>']
    m.wait_log(rf'=> {RECIPIENT_A} <{RECIPIENT}> F=<{SENDER_A}> ')


def test_control_and_option(martlet, smtp_server):
    """The ACL's word counts where the transport has none; the transport's goes before it."""
    s = smtp_server(keywords=UTF8)
    m = relaying(martlet, s, client='utf8_downconvert =', acl_rcpt='  warn control = utf8_downconvert/1\n')
    send(m.port)
    assert arrived(s)['rcpt'] == [f'<{RECIPIENT_A}>']
    m = relaying(martlet, s, client='utf8_downconvert = 0', acl_rcpt='  warn control = utf8_downconvert/1\n')
    send(m.port)
    assert arrived(s, 2)['rcpt'] == [raw(f'<{RECIPIENT}>')]


def test_lmtp(martlet, smtp_server):
    for keywords, rcpt in [(UTF8, raw(f'<{RECIPIENT}>')), (('PIPELINING',), f'<{RECIPIENT_A}>')]:
        s = smtp_server({'LHLO': '\n'.join('250 ' + k for k in ('sink.test',) + keywords)})
        m = relaying(martlet, s, client='protocol = lmtp')
        send(m.port)
        assert arrived(s)['rcpt'] == [rcpt]


def reports(m, pattern='u0'):
    return [email.message_from_bytes(t) for t in maildir(m.outside(f'mail/{pattern}'))]


def test_refusal_and_report(martlet, smtp_server):
    """Conversion is forbidden and the next hop cannot: the sender is told, in UTF-8 (RFC 6533)."""
    s = smtp_server()
    m = relaying(martlet, s, client='utf8_downconvert = 0', users=('jürgen', 'u0'))
    send(m.port, 'jürgen@local.test')
    m.wait_log(rf'\*\* {RECIPIENT} R=relay T=remote_smtp H=127\.0\.0\.1 \[127\.0\.0\.1\] ?: utf8 support required but not offered for forwarding$')
    assert not s.messages
    wait_for(lambda: reports(m, 'jürgen'), 'the bounce')
    bounce = reports(m, 'jürgen')[0]
    text, status, original = bounce.get_payload()
    assert text.get_content_charset() == 'utf-8' and RECIPIENT in text.get_payload(decode=True).decode()
    assert status.get_content_type() == 'message/global-delivery-status'
    assert f'Final-Recipient: utf-8;{RECIPIENT}\n' in part(bounce, 'global-delivery-status')
    assert original.get_content_type() == 'message/global'
    assert 'Subject: päivää' in part(bounce, 'global\n')


def part(message, name):
    """A part as it is: the email package does not take message/global* apart, or does too much."""
    text = message.as_bytes(policy=message.policy.clone(cte_type='8bit')).decode('utf-8', 'surrogateescape')
    return re.split(r'\n--\S+-eximdsn-\S+\n', text.split(f'message/{name}', 1)[1])[0]


def test_report_about_ascii_stays_as_it_was(martlet, smtp_server):
    s = smtp_server({'RCPT': '550 no'})
    m = relaying(martlet, s)
    send(m.port, 'u0@local.test', ['x@relay.test'], header='Subject: x\r\n')
    wait_for(lambda: reports(m), 'the bounce')
    kinds = [p.get_content_type() for p in reports(m)[0].get_payload()]
    assert kinds == ['text/plain', 'message/delivery-status', 'message/rfc822']


def test_original_recipient(martlet, smtp_server):
    """ORCPT=utf-8;…: passed on in ASCII, shown in UTF-8."""
    s = smtp_server({'RCPT': lambda line, _: '550 no' if 'bad' in line else None}, keywords=UTF8 + ('DSN',))
    m = relaying(martlet, s, main='dsn_advertise_hosts = *', client='dns_qualify_single')
    send(m.port, 'u0@local.test', ['good@relay.test'], rcpt=' ORCPT=utf-8;ö@x.test')
    assert arrived(s)['rcpt'] == ['<good@relay.test> ORCPT=utf-8;\\x{F6}@x.test']
    send(m.port, 'u0@local.test', ['bad@relay.test'], rcpt=r' ORCPT=utf-8;\x{F6}@x.test')
    wait_for(lambda: reports(m), 'the bounce')
    assert 'Original-Recipient: utf-8;ö@x.test\n' in part(reports(m)[0], 'global-delivery-status')
    with Client(m.port) as c: # UTF-8 in it needs SMTPUTF8
        c.ehlo()
        c.expect(250, 'MAIL FROM:<u0@local.test>')
        assert c.cmd(raw('RCPT TO:<x@relay.test> ORCPT=utf-8;ö@x.test'))[0] == 501


def test_kept_in_the_queue(martlet, smtp_server):
    """-H says it (Exim's words); a daemon that starts anew knows it."""
    s = smtp_server({'MAIL': ['451 later', None]}, keywords=('SMTPUTF8',))
    m = relaying(martlet, s, main='queue_only', client='utf8_downconvert =', acl_rcpt='  warn control = utf8_downconvert/-1\n')
    send(m.port)
    wait_for(lambda: glob.glob(m.outside('spool/input/**/*-H'), recursive=True), m.logs)
    text = read(glob.glob(m.outside('spool/input/**/*-H'), recursive=True)[0])
    assert '\n-smtputf8\n' in text and '\n-utf8_optdowncvt\n' in text and '\n-received_protocol utf8esmtp\n' in text
    m.run('-qf')
    wait_for(lambda: any('MAIL' in c for c in s.commands), m.logs)
    m.run('-qff')
    assert arrived(s)['mail'].endswith(' SMTPUTF8')


def test_submission(martlet, smtp_server):
    """Addresses in UTF-8 on the command line or in To: make the message one."""
    s = smtp_server(keywords=UTF8)
    m = relaying(martlet, s)
    def submit(*args, text):
        m.run(*args, input=text.encode())
    submit('-f', 'a@b.test', RECIPIENT, text='Subject: x\n\nx\n')
    assert arrived(s)['rcpt'] == [raw(f'<{RECIPIENT}>')] and arrived(s)['mail'].endswith(' SMTPUTF8')
    submit('-t', text=f'To: {RECIPIENT}\nSubject: x\n\nx\n')
    assert arrived(s, 2)['rcpt'] == [raw(f'<{RECIPIENT}>')] and arrived(s, 2)['mail'].endswith(' SMTPUTF8')


def test_vrfy_and_expn(martlet):
    m = martlet(main='acl_smtp_vrfy = accept\nacl_smtp_expn = accept', users=('jürgen', 'u0'),
                routers='team:\n  driver = redirect\n  local_parts = team\n  data = jürgen@local.test\n')
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd(raw('VRFY jürgen@local.test SMTPUTF8')) == (250, raw('<jürgen@local.test> is deliverable'))
        assert c.cmd(raw('EXPN team@local.test SMTPUTF8')) == (250, raw('<jürgen@local.test>'))
        assert c.cmd('EXPN team@local.test')[0] == 252


def test_through_postfix(martlet, postfix):
    """A Postfix that knows SMTPUTF8 hands the message on to us, and takes another from us."""
    out = martlet(users=('u0',))
    p = postfix(main='smtputf8_enable = yes\n', relayhost=f'[127.0.0.1]:{out.port}')
    m = martlet(smarthost=f'127.0.0.1::{p.port}', relay_to='local.test', routers='away:\n  driver = manualroute\n'
                f'  transport = remote_smtp\n  route_list = * 127.0.0.1::{p.port}\n  self = send\n')
    send(m.port, SENDER, ['u0@local.test'])
    wait_for(lambda: maildir(out.outside('mail/u0')), lambda: p.log() + out.logs())
    text = maildir(out.outside('mail/u0'))[0].decode()
    assert 'Return-path: <' + SENDER + '>' in text and 'Subject: päivää' in text
    out.wait_log(rf'<= {SENDER} H=.* P=utf8esmtp ')


def test_dns_names(martlet, nameserver, smtp_server):
    """The DNS is asked for A-labels; the address keeps its form."""
    s = smtp_server(keywords=UTF8)
    nameserver.add('xn--hxajbheg2az3al.test', 'MX', (5, 'mx.relay.test'))
    nameserver.add('mx.relay.test', 'A', '127.0.0.1')
    m = martlet(resolver=nameserver.address, relay_to=RELAY, client=f'port = {s.port}',
                routers='away:\n  driver = dnslookup\n  domains = ! +local_domains\n  transport = remote_smtp\n  self = send\n  no_more\n')
    send(m.port)
    assert arrived(s)['rcpt'] == [raw(f'<{RECIPIENT}>')]
