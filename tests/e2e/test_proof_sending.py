"""What the features' specifications ask to be shown of the sending side: notices (RFC 3461), what they tell of the session,
queuefile, events, PRDR as a client."""
import email
import os
import re
import stat

import pytest

from support.smtp import Client
from support.util import maildir, wait_for

EHLO = 'PIPELINING', 'SIZE 1000000'


def parts_of(data):
    """(text, groups of message/delivery-status, the original's part) of a report; what does not parse fails here."""
    m = email.message_from_bytes(data)
    assert m.get_content_type() == 'multipart/report' and m.get_param('report-type') == 'delivery-status'
    text, status, original = m.get_payload()
    assert (text.get_content_type(), status.get_content_type()) == ('text/plain', 'message/delivery-status')
    return m, status.get_payload(), original


# --- F07 (a), (e), (f): which wishes lead to which notices ---

NOTIFY = ['', 'NEVER', 'SUCCESS', 'FAILURE', 'DELAY', 'SUCCESS,FAILURE', 'FAILURE,DELAY']
# RFC 3461, 5.2 and 6.1: what the sender hears of each kind of recipient.
KINDS = {
    'local': ('u1@local.test', {'SUCCESS': 'delivered', 'SUCCESS,FAILURE': 'delivered'}),
    'refused': ('u8@local.test', {'': 'failed', 'FAILURE': 'failed', 'SUCCESS,FAILURE': 'failed', 'FAILURE,DELAY': 'failed'}),
    'next hop with DSN': ('x@knows.test', {}),
    'next hop without DSN': ('x@relay.test', {'SUCCESS': 'relayed', 'SUCCESS,FAILURE': 'relayed'}),
    'next hop refuses': ('bad@relay.test', {'': 'failed', 'FAILURE': 'failed', 'SUCCESS,FAILURE': 'failed', 'FAILURE,DELAY': 'failed'}),
    'alias of one': ('u4@local.test', {'SUCCESS': 'relayed|expanded', 'SUCCESS,FAILURE': 'relayed|expanded'}),
    'alias of two': ('u5@local.test', {'SUCCESS': 'expanded', 'SUCCESS,FAILURE': 'expanded'}),
}


@pytest.mark.parametrize('ret', ['FULL', 'HDRS'])
def test_who_hears_of_what(martlet, smtp_server, ret):
    plain = smtp_server({'RCPT': lambda line, session: '550 5.1.1 no' if 'bad' in line else None}, keywords=EHLO)
    knows = smtp_server(keywords=EHLO + ('DSN',))
    m = martlet(arguments=[], main='dsn_advertise_hosts = 127.0.0.1\nsmtp_accept_queue_per_connection = 0', smarthost=f'127.0.0.1::{plain.port}', relay_to='relay.test : knows.test',
                routers='one:\n  driver = redirect\n  local_parts = u4\n  domains = +local_domains\n  data = u6@local.test\n'
                        'two:\n  driver = redirect\n  local_parts = u5\n  domains = +local_domains\n  data = u6@local.test, u7@local.test\n'
                        'no:\n  driver = redirect\n  local_parts = u8\n  domains = +local_domains\n  allow_fail\n  data = :fail: no\n'
                        f'knows:\n  driver = manualroute\n  domains = knows.test\n  transport = remote_smtp\n  route_list = * 127.0.0.1::{knows.port}\n  self = send\n')
    cases = [(kind, notify) for kind in KINDS for notify in NOTIFY]
    expected = {}
    with Client(m.port) as c:
        c.ehlo()
        for n, (kind, notify) in enumerate(cases):
            recipient, outcomes = KINDS[kind]
            c.expect(250, f'MAIL FROM:<u9@local.test> RET={ret} ENVID=case{n}')
            c.expect(250, f'RCPT TO:<{recipient}>' + (f' NOTIFY={notify}' if notify else ''))
            c.expect(354, 'DATA')
            c.send('Subject: x\r\n\r\nthe body\r\n.\r\n')
            assert c.reply()[0] == 250
            if notify in outcomes:
                expected[n] = (recipient, outcomes[notify])
        c.expect(250, 'MAIL FROM:<> ENVID=null')
        c.expect(250, 'RCPT TO:<u1@local.test> NOTIFY=SUCCESS')
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nthe body\r\n.\r\n')
        assert c.reply()[0] == 250
    m.wait_log(' Completed', count=len(cases) + 1 + len(expected))
    reports = m.mail('u9')
    found = {}
    for data in reports:
        message, groups, original = parts_of(data)
        envelope = groups[0]['Original-Envelope-Id']
        assert envelope and envelope.startswith('case') and len(groups) == 2, data
        n = int(envelope[4:])
        assert n not in found, (cases[n], data)
        found[n] = True
        assert n in expected, (cases[n], data)
        recipient, action = expected[n]
        assert groups[1]['Final-Recipient'] == 'rfc822;' + recipient and re.fullmatch(action, groups[1]['Action']), (cases[n], data)
        whole = ret == 'FULL' and action == 'failed'
        assert original.get_content_type() == ('message/rfc822' if whole else 'text/rfc822-headers'), (cases[n], data)
        assert (b'the body' in data) == whole
        assert message['Auto-Submitted'].startswith('auto-') and message['Return-path'] == '<>'
        assert (message['X-Failed-Recipients'] == recipient) if action == 'failed' else message['X-Failed-Recipients'] is None
    assert set(found) == set(expected), [cases[n] for n in set(expected) - set(found)]
    # What the next hop got is what we got, and nothing that was not said.
    for notify in NOTIFY:
        line = 'RCPT TO:<x@knows.test>' + (f' NOTIFY={notify}' if notify else '')
        assert line in knows.commands, knows.commands
    assert not [c for c in plain.commands if 'NOTIFY' in c or 'RET=' in c]


@pytest.mark.peers
def test_notice_parameters_reach_postfix(martlet, postfix):
    """F07 (b): Postfix as the next hop answers for itself: its success notice has our ENVID and ORCPT."""
    p = postfix()
    m = martlet(arguments=[], main='dsn_advertise_hosts = 127.0.0.1', smarthost=f'127.0.0.1::{p.port}', relay_to='postfix.test')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<u1@postfix.test> RET=HDRS ENVID=a+2Bb')
        c.expect(250, 'RCPT TO:<u2@postfix.test> NOTIFY=SUCCESS ORCPT=rfc822;first@local.test')
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nhello\r\n.\r\n')
        assert c.reply()[0] == 250
    m.wait_log('Completed')
    text = wait_for(lambda: next((x for x in maildir(p.maildir('u1')) if b'delivery-status' in x), None), lambda: p.log() + m.logs())
    _, groups, _ = parts_of(text)
    assert groups[0]['Original-Envelope-Id'] == 'a+b' and groups[1]['Original-Recipient'].replace(' ', '') == 'rfc822;first@local.test'


# --- F08: what a bounce tells of the session ---

def bounced(martlet, server_port, **kw):
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{server_port}', **kw)
    m.run('-odi', '-f', 'u0@local.test', 'x@relay.test', input='Subject: x\n\nhello\n')
    return m


def test_the_session_in_a_bounce(martlet, smtp_server):
    """(a): a greeting of three lines with a tab and 8-bit characters; the port is not 25; first lines only."""
    s = smtp_server({'CONNECT': '220 first\tl\xe9ne\n220 second line\n220 third line', 'EHLO': '250 hello line\n250 SIZE', 'RCPT': '550 5.1.1 not here'})
    m = bounced(martlet, s.port)
    _, groups, _ = parts_of(m.mail('u0')[0])
    g = groups[1]
    assert g.get_all('Remote-MTA') == ['dns; 127.0.0.1', f'X-ip; [127.0.0.1]:{s.port}']
    greeting = g['X-Remote-MTA-smtp-greeting']
    assert greeting.startswith('X-str; 220') and 'first' in greeting and 'second' not in greeting and greeting.isascii() and '\t' not in greeting
    assert g['X-Remote-MTA-helo-response'].startswith('X-str; 250') and 'SIZE' not in g['X-Remote-MTA-helo-response']
    assert 'after RCPT TO:<x@relay.test>: 550 5.1.1 not here' in re.sub(r'\s+', ' ', g['X-Exim-Diagnostic'])
    # (c): who was never reached has said nothing.
    m = bounced(martlet, 1, retry='* *')
    assert b'X-Remote-MTA' not in m.mail('u0')[0]


def test_a_long_reply_is_folded(martlet, smtp_server):
    """(d)"""
    s = smtp_server({'RCPT': '550 ' + 'word ' * 180})
    m = bounced(martlet, s.port)
    data = m.mail('u0')[0]
    _, groups, _ = parts_of(data)
    lines = data.decode('latin-1').split('\n')
    first = next(n for n, line in enumerate(lines) if line.startswith('X-Exim-Diagnostic:'))
    field = [lines[first]]
    while lines[first + len(field)].startswith(' '):
        field.append(lines[first + len(field)])
    assert len(field) > 1 and all(len(line) < 80 for line in field), field
    assert all(len(line) <= 998 for line in lines) and len(groups[1]['X-Exim-Diagnostic']) < 700


def test_no_session_in_other_notices(martlet, smtp_server):
    """(e): nothing of the session in success and delay notices."""
    s = smtp_server({'RCPT': lambda line, session: '451 later' if 'late' in line else None}, keywords=EHLO)
    m = martlet(arguments=[], main='dsn_advertise_hosts = 127.0.0.1\ndelay_warning = 1s', smarthost=f'127.0.0.1::{s.port}', retry='* * F,1h,1s')
    for to in ('x@relay.test', 'late@relay.test'):
        with Client(m.port) as c:
            c.ehlo()
            c.expect(250, 'MAIL FROM:<u0@local.test>')
            c.expect(250, f'RCPT TO:<{to}> NOTIFY=SUCCESS,DELAY')
            c.expect(354, 'DATA')
            c.send('Subject: x\r\n\r\nhello\r\n.\r\n')
            assert c.reply()[0] == 250
    wait_for(lambda: m.run('-qf') is not None and {parts_of(x)[1][1]['Action'] for x in m.mail('u0')} == {'relayed', 'delayed'}, m.logs)
    for x in m.mail('u0'):
        assert b'X-Remote-MTA' not in x and b'X-Exim-Diagnostic' not in x and b'X-ip' not in x


def test_a_greeting_adds_no_fields(martlet, smtp_server):
    """(f): a line end inside of the greeting's line."""
    s = smtp_server({'CONNECT': lambda line, session: '220-x\rX-Evil: 1\n220 y', 'RCPT': '550 no'})
    m = bounced(martlet, s.port)
    _, groups, _ = parts_of(m.mail('u0')[0])
    assert len(groups) == 2 and groups[1]['X-Evil'] is None and not re.search(rb'^X-Evil', m.mail('u0')[0], re.M)


def test_the_session_can_be_left_out(martlet, smtp_server):
    s = smtp_server({'RCPT': '550 no'})
    m = bounced(martlet, s.port, main='dsn_extra_info = false')
    assert b'X-Exim-Diagnostic' not in m.mail('u0')[0] and b'X-ip' not in m.mail('u0')[0]


# --- F11 (d), (e), (f): queuefile ---

def scanned(martlet, directory, **kw):
    return martlet(routers='scan:\n  driver = accept\n  domains = +local_domains\n  transport = scan\n',
                   transports=f'scan:\n  driver = queuefile\n  directory = {directory}\n', **kw)


@pytest.mark.parametrize('directory', ['@DIR@/nowhere', 'relative', '@DIR@/mail/../mail/scan', '', '@DIR@/mail/$local_part'])
def test_queuefile_directories_that_defer(martlet, directory):
    m = scanned(martlet, directory or '${if eq{1}{2}{x}}', daemon=False, allow_panic='scan|queuefile|directory')
    m._own('mail/scan')
    m._own('mail/u0')
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nhello\n')
    assert re.search(r'== u0@local\.test R=scan T=scan defer', m.log()), m.log()
    assert len(m.queue()) == 1 and os.listdir(m.outside('mail/scan')) == [] and os.listdir(m.outside('mail/u0')) == []


def test_queuefile_in_a_directory_that_cannot_be_written(martlet):
    m = scanned(martlet, '@DIR@/mail/scan', daemon=False, allow_panic='scan')
    os.chmod(m._own('mail/scan'), 0o555)
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nhello\n')
    assert re.search(r'== u0@local\.test R=scan T=scan defer \(\d+\): Permission denied', m.log()), m.log()
    assert os.listdir(m.outside('mail/scan')) == []


def test_queuefile_with_two_queue_runners(martlet):
    m = scanned(martlet, '@DIR@/mail/scan', daemon=False)
    m._own('mail/scan')
    count = 60
    m.run('-bS', '-odq', input=''.join('MAIL FROM:<a@b.test>\nRCPT TO:<u0@local.test>\nDATA\nSubject: x\n\nhello\n.\n' for n in range(count)))
    assert len(m.queue()) == count
    runners = [m.popen('-q') for n in range(2)]
    for r in runners:
        r.stdin.close()
        assert r.wait(120) == 0
    names = os.listdir(m.outside('mail/scan'))
    assert len(names) == 2 * count and len([n for n in names if n.endswith('-H')]) == count and m.queue() == []
    assert len(re.findall(' Completed', m.log())) == count
    modes = {stat.S_IMODE(os.stat(os.path.join(m.outside('mail/scan'), n)).st_mode) for n in names}
    assert modes == {0o640}, modes


# --- F21 (e), (f): event actions that go wrong ---

def test_an_event_action_that_is_wrong_moves_mail(martlet, smtp_server):
    s = smtp_server()
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', allow_panic='failed to expand event_action',
                client='event_action = ${if eq{$event_name}{msg:delivery}{${lookup{x}lsearch{/nonexistent/file}}}}')
    m.run('-odi', '-f', 'a@b.test', 'x@relay.test', input='Subject: x\n\nhello\n')
    assert len(s.messages) == 1 and m.queue() == [] and 'failed to expand event_action msg:delivery in remote_smtp' in m.log('panic')


def test_a_long_event_result_moves_mail(martlet, smtp_server):
    s = smtp_server()
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', allow_panic='event_action',
                client='event_action = ${if eq{$event_name}{msg:delivery}{${run{/bin/sh -c "head -c 1000000 /dev/zero | tr \'\\\\0\' x"}}}}')
    m.run('-odi', '-f', 'a@b.test', 'x@relay.test', input='Subject: x\n\nhello\n')
    assert len(s.messages) == 1 and m.queue() == []


def test_a_banner_in_sql(martlet, smtp_server, scratch):
    """Quoted, a stranger's text is stored as it is."""
    os.chmod(scratch, 0o777)
    path, banner = f'{scratch}/events.db', "220 it's \"here\"; DROP TABLE e; --"
    import sqlite3
    with sqlite3.connect(path) as db:
        db.execute('create table e (t text)')
    os.chmod(path, 0o666)
    s = smtp_server({'CONNECT': banner})
    action = ("${if eq{$event_name}{smtp:connect}{${lookup sqlite,file=%s {insert into e values ('${quote_sqlite:$event_data}')}{}{}}}}" % path)
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client=f'event_action = {action}')
    m.run('-odi', '-f', 'a@b.test', 'x@relay.test', input='Subject: x\n\nhello\n')
    with sqlite3.connect(path) as db:
        assert db.execute('select t from e').fetchall() == [(banner,)], m.logs()
    assert len(s.messages) == 1


# --- F19 (b), (d): PRDR as a client ---

def prdr(martlet, smtp_server, answers, **kw):
    def dot(data, session):
        session.sock.sendall(''.join(a + '\r\n' for a in answers[:-1]).encode())
        return answers[-1]
    s = smtp_server({'DOT': dot}, keywords=('PRDR', 'SIZE 1000000'))
    return s, martlet(arguments=[], smarthost=f'127.0.0.1::{s.port}', retry='* * F,1d,1h', **kw)


def outcomes(m, count):
    wait_for(lambda: len(re.findall(r' (?:=>|->|\*\*|==) \w+@relay\.test', m.log())) >= count, m.logs)
    return {who: what.replace('->', '=>') for what, who in re.findall(r' (=>|->|\*\*|==) (\w)@relay\.test', m.log())}


@pytest.mark.parametrize('answers,expected', [
    (['353 each', '250 a', '550 b', '450 c', '250 all'], {'a': '=>', 'b': '**', 'c': '=='}),
    (['353 each', '250 a', '550 b', '250 c', '450 all later'], {'a': '==', 'b': '==', 'c': '=='}),
    (['353 each', '250 a', '450 b', '250 c', '550 all never'], {'a': '**', 'b': '**', 'c': '**'}),
    (['250 one for all'], {'a': '=>', 'b': '=>', 'c': '=>'}),
    (['550 one for all'], {'a': '**', 'b': '**', 'c': '**'}),
], ids=['each its own', 'final 450', 'final 550', '250 without 353', '550 without 353'])
def test_prdr_answers(martlet, smtp_server, answers, expected):
    s, m = prdr(martlet, smtp_server, answers)
    with Client(m.port) as c:
        assert c.mail('', 'a@relay.test', 'b@relay.test', 'c@relay.test')[0] == 250
    assert outcomes(m, 3) == expected


def test_a_prdr_refusal_counts_as_failure(martlet, smtp_server):
    """F19 (d): who wanted to hear nothing hears nothing."""
    s, m = prdr(martlet, smtp_server, ['353 each', '250 a', '550 b', '250 all'], main='dsn_advertise_hosts = 127.0.0.1')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<u0@local.test>')
        for rcpt in ('a', 'b'):
            c.expect(250, f'RCPT TO:<{rcpt}@relay.test> NOTIFY=NEVER')
        c.expect(354, 'DATA')
        c.send('Subject: x\r\n\r\nhello\r\n.\r\n')
        assert c.reply()[0] == 250
    m.wait_log('Completed')
    assert ' <= <>' not in m.log() and re.search(r'b@relay\.test.*: error ignored: RFC 3461', m.log()), m.log()


def test_the_older_names_of_events(martlet, smtp_server):
    """F21 (d): tpda_event_action, $tpda_event and so on; the old and the new name together are an error."""
    s = smtp_server({'RCPT': lambda line, session: '451 later' if 'late' in line else None})
    action = '${acl {ev}}'
    m = martlet(daemon=False, smarthost=f'127.0.0.1::{s.port}', client=f'tpda_event_action = {action}',
                acl='ev:\n  accept logwrite = event $tpda_event <$tpda_data> $tpda_defer_errno')
    m.run('-odi', '-f', 'a@b.test', 'x@relay.test', 'late@relay.test', input='Subject: x\n\nhello\n')
    events = re.findall(r'event (\S+) <(.*)> (\S+)$', m.log(), re.M)
    assert ('msg:delivery', '250 kept', '0') in events and ('msg:rcpt:defer', str(51 * 256 + 65)) in [(e[0], e[2]) for e in events], events
    both = martlet(daemon=False, client=f'tpda_event_action = {action}\n  event_action = {action}')
    assert both.run('-bV', check=False).returncode != 0
