"""Log lines of the server's side, as Debian's Exim writes them."""
import re

import pytest

from support.smtp import Client

HOST = ('-oMa', '192.0.2.1')


def session(martlet, main, *commands, **kw):
    m = martlet(daemon=False, main=main, **kw)
    done = m.run('-bs', *HOST, input=''.join(f'{c}\r\n' for c in commands))
    return m, done


def test_hello_required(martlet):
    """A MAIL too early is refused in one line, and is no protocol error that counts."""
    m, done = session(martlet, 'hosts_require_helo = *\nlog_selector = +smtp_protocol_error +smtp_no_mail\nsmtp_max_synprot_errors = 1\n',
                      *['MAIL FROM:<a@b.test>'] * 3, 'QUIT')
    assert done.count('503 HELO or EHLO required') == 3 and '221 ' in done
    assert len(re.findall(r'rejected MAIL from \[192\.0\.2\.1\].*: no HELO/EHLO given\n', m.log())) == 3, m.log()
    assert 'protocol error' not in m.log() and 'no MAIL in' not in m.log()


def test_hello_that_does_not_verify(martlet):
    """Later lines go on showing the name that was refused."""
    m, done = session(martlet, 'helo_verify_hosts = *\n', 'EHLO [192.0.2.9]', 'MAIL FROM:<a@b.test>', 'QUIT')
    assert '550 EHLO argument does not match calling host' in done
    assert re.search(r'rejected MAIL from \(\[192\.0\.2\.9\]\) \[192\.0\.2\.1\].*: no HELO/EHLO given\n', m.log()), m.log()


def test_refused_connections_had_no_chance_for_mail(martlet):
    for main, acl in (('host_reject_connection = *\n', ''), ('acl_smtp_connect = no\n', 'no:\n  deny\n')):
        m, done = session(martlet, main + 'log_selector = +smtp_no_mail\n', 'QUIT', acl=acl)
        assert done.startswith('55'), done
        assert 'refused' in m.log() or 'rejected connection' in m.log()
        assert 'no MAIL in' not in m.log()


def test_incomplete_transaction_before_the_quit_acl(martlet):
    m, done = session(martlet, 'acl_smtp_quit = bye\nlog_selector = +smtp_incomplete_transaction\n', 'EHLO x', 'MAIL FROM:<a@b.test>', 'QUIT',
                      acl='bye:\n  accept logwrite = in the ACL\n')
    assert re.search(r'incomplete transaction \(QUIT\) from <a@b\.test>\n.* in the ACL\n', m.log()), m.log()


def test_unqualified_query(martlet):
    m, done = session(martlet, 'acl_smtp_vrfy = yes\nlog_selector = +smtp_syntax_error\n', 'EHLO x', 'VRFY u0', 'QUIT', acl='yes:\n  accept\n')
    assert '501 ' in done
    for kind in ('main', 'reject'):
        assert 'unqualified verify rejected: <u0> H=(x) [192.0.2.1]' in m.log(kind)


def test_host_check_shows_the_main_log(martlet):
    """What goes to the reject log only is not echoed by -bh."""
    for selector, shown in (('-smtp_syntax_error', False), ('+smtp_syntax_error', True)):
        m = martlet(daemon=False, main=f'log_selector = {selector}\n')
        done = m.run('-bh', '192.0.2.1', input='HELO x\r\nMAIL FROM:<u>\r\nQUIT\r\n')
        assert '501 ' in done
        assert ('LOG: unqualified sender rejected: <u> H=(x) [192.0.2.1]' in done) == shown, done


def test_lists_that_cannot_be_decided(martlet):
    clauses = ''.join(f'  warn hosts = {text}\n    logwrite = in {n}\n' for n, text in
                      enumerate(('10.0.0.300 : *', '+include_unknown : 10.0.0.300', '+ignore_unknown : 10.0.0.300 : *')))
    m, done = session(martlet, 'log_selector = +unknown_in_list\n', 'EHLO x', 'MAIL FROM:<a@b.test>', 'RCPT TO:<u0@local.test>', 'QUIT',
                      acl_rcpt=clauses)
    said = [line.split(' ', 2)[2] for line in m.log().split('\n') if line.count(' ') > 2]
    why = 'malformed IPv4 address or address mask'
    assert said[:3] == [f'list matching forced to fail: {why}', f'{why}: accepted by +include_unknown', 'in 1'], m.log()
    assert 'in 0' not in m.log() and 'in 2' in m.log()


@pytest.mark.parametrize('early, field', [('', 'L-'), ('*', 'L.-')])
def test_pipelining_that_was_not_used(martlet, early, field):
    m = martlet(main=f'log_selector = +pipelining\npipelining_connect_advertise_hosts = {early}\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    line = m.wait_log(r'<= a@b\.test .*')[0]
    assert f' {field} ' in line, line


def test_connection_line_comes_before_the_name(martlet):
    """As -bh shows: hosts_connection_nolog is looked at first."""
    m = martlet(daemon=False, main='log_selector = +smtp_connection\n')
    done = m.run('-bh', '192.0.2.1', input='QUIT\r\n')
    assert 0 < done.find('host in hosts_connection_nolog?') < done.find('host in host_lookup?'), done


def test_lost_data_has_the_interface(martlet):
    m = martlet(main='log_selector = +incoming_interface\n')
    c = Client(m.port)
    c.ehlo()
    for command, code in (('MAIL FROM:<a@b.test>', 250), ('RCPT TO:<u0@local.test>', 250), ('DATA', 354)):
        c.expect(code, command)
    c.send('Subject: x\r\n')
    c.close()
    line = m.wait_log(r'SMTP connection from .*lost while reading message data \(header\)')[0]
    assert re.search(rf' I=\[127\.0\.0\.1\]:{m.port} lost', line), line


@pytest.mark.parametrize('selectors, shown', [('-all +lost_incoming_connection', True), ('-all +smtp_connection', True), ('-all', False)])
def test_lost_data_and_its_selectors(martlet, selectors, shown):
    m = martlet(daemon=False, main=f'log_selector = {selectors}\n')
    m.run('-bs', *HOST, input='EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nDATA\r\nSubject: x\r\n', check=False)
    assert (' lost while reading message data (header)' in m.log()) == shown, m.log()
