"""martlet explain --session: which ACL statement decided each reply of a recorded session."""
import os
import pty
import re
import subprocess

import pytest

ACL = '''
begin acl
check_rcpt:
  accept hosts = 10.0.0.0/8
  deny   message = no such user here
         domains = local.test
         !local_parts = u1 : u2
  accept domains = local.test
         set acl_m_seen = $local_part
         acl = nested $local_part
  deny   message = relay not permitted
         log_message = relay attempt from $sender_host_address
nested:
  warn   condition = ${if eq{$acl_arg1}{u1}}
  accept
check_data:
  deny   condition = ${if eq{$h_subject:}{bad}}
         message = bad subject
  accept
'''
MAIN = '''primary_hostname = mx.test
spool_directory = @DIR@/spool
log_file_path = @DIR@/log/%slog
tls_advertise_hosts =
host_lookup =
acl_smtp_rcpt = check_rcpt
acl_smtp_data = check_data
'''
SESSION = '''EHLO client.test
MAIL FROM:<x@y.test>
RCPT TO:<u9@local.test>
RCPT TO:<who@other.test>
RCPT TO:<u1@local.test>
DATA
Subject: bad

text
.
VRFY u1
QUIT
NOOP
'''


@pytest.fixture
def explain(martlet):
    m = martlet(configuration=MAIN + ACL, daemon=False)

    def run(text, *more, status=0, **kw):
        done = m.run('explain', '--session', '-', *more, input=text, check=False, err=False, **kw)
        assert done.returncode == status, done.stdout
        return done.stdout
    run.martlet = m
    return run


def parts(out):
    """What is shown for each command."""
    return {p.split('\n')[0]: p for p in re.split(r'^C: ', out, flags=re.M)}


def test_statements_and_values(explain):
    out = explain(SESSION, '--host', '192.0.2.7')
    assert out.startswith('A client at 192.0.2.7.') and '\033' not in out
    p = parts(out)
    assert 'no ACL' not in p['MAIL FROM:<x@y.test>'] and 'S: 250 OK\n' in p['MAIL FROM:<x@y.test>']
    unknown = p['RCPT TO:<u9@local.test>']
    conf = re.escape(explain.martlet.conf)
    assert re.search(r'^ +no    hosts = 10\.0\.0\.0/8 +\[\(client\.test\) \[192\.0\.2\.7\]\]\n', unknown, re.M), unknown
    assert re.search(r'^ +yes   domains = local\.test +\[local\.test\]\n +yes   !local_parts = u1 : u2 +\[u9\]\n', unknown, re.M), unknown
    assert re.search(r'^S: 550 no such user here\n   decided by: deny, line 12 of ' + conf + r' \(ACL check_rcpt\)\n', unknown, re.M), unknown
    relay = p['RCPT TO:<who@other.test>']
    assert 'decided by: deny, line 18 of' in relay and 'for the log: relay attempt from 192.0.2.7\n' in relay
    good = p['RCPT TO:<u1@local.test>']
    assert 'set acl_m_seen = u1\n' in good and 'ACL nested (RCPT)' in good and 'yes   condition = true' in good
    assert 'from: ${if eq{$acl_arg1}{u1}}' in good and 'decided by: accept, line 15 of' in good
    data = p['(3 lines of the message)']
    assert 'S: 550 bad subject\n   decided by: deny, line 24 of' in data
    assert 'decided by: the server itself; no ACL was asked' in p['VRFY u1']
    assert out.endswith('C: NOOP\nS: (the session has ended)\n')


def test_host_and_lines_not_replayed(explain):
    out = explain('HELO a.test\nQUIT\nNOOP\nNOOP\n', '--host', '10.1.2.3.2525')
    assert out.endswith('S: (the session has ended)\n1 lines of the recording were not replayed.\n')
    assert 'yes   hosts = 10.0.0.0/8' in explain('EHLO a\nMAIL FROM:<>\nRCPT TO:<a@b>\n', '--host', '10.1.2.3.2525')
    explain('QUIT\n', '--host', 'nonsense', status=1)
    assert explain('').startswith('A client at 127.0.0.1 (--host ADDRESS for another)')


@pytest.mark.parametrize('client, server', [(' -> ', '<-  '), (' ~> ', '<~  '), ('C: ', 'S: '), ('>>> ', '<<< ')])
def test_forms_of_recordings(explain, client, server):
    text = ('=== Connected to x\n' + server + '220 x ESMTP\n' + client + 'EHLO a.test\n' + server + '250-x\n' + server + '250 OK\n' + client +
            'MAIL FROM:<a@b.test>\n' + server + '250 OK\n' + client + 'RCPT TO:<u9@local.test>\n')
    out = explain(text + server + '550 no\n')
    assert 'the recording has' not in out and 'S: 550 no such user here' in out
    out = explain(text + server + '250 fine\n', status=2)
    assert 'the recording has 250 here' in out and out.endswith('answers that differ from the recording: 1\n')
    # DATA that is refused now: what follows in the recording is no command.
    out = explain(text + server + '250 fine\n' + client + 'DATA\n' + server + '354 go on\n' + client + 'RSET\n' + client + '.\n' + server +
                  '250 OK\n' + client + 'QUIT\n', status=2)
    assert '(1 lines of the message, not sent)' in out and 'S: 503 ' in out and 'S: 221' in out and 'RSET' not in out


def test_secrets_and_tls(explain):
    out = explain('EHLO a\nAUTH PLAIN c2VjcmV0\nSTARTTLS\nEHLO a\nQUIT\n')
    assert 'c2VjcmV0' not in out and 'C: AUTH PLAIN ***' in out
    assert 'not replayed: what follows is played in clear' in out and 'S: 221' in out


def test_bdat(explain):
    out = explain('EHLO a\nMAIL FROM:<a@b.test>\nRCPT TO:<u1@local.test>\nBDAT 16 LAST\nSubject: bad\n\nQUIT\n')
    assert 'C: (16 bytes of the message)' in out and 'S: 550 bad subject' in out and 'S: 221' in out


def test_colour_only_on_a_terminal(explain):
    m = explain.martlet
    master, slave = pty.openpty()
    done = subprocess.Popen(m._command(['-C', m.conf, 'explain', '--session', '-']), stdin=subprocess.PIPE, stdout=slave, cwd='/',
                            env=m.environment, stderr=subprocess.DEVNULL)
    os.close(slave)
    done.stdin.write(b'EHLO a\nQUIT\n')
    done.stdin.close()
    out = b''
    try:
        while True:
            piece = os.read(master, 65536)
            if not piece:
                break
            out += piece
    except OSError:  # the other end is closed
        pass
    os.close(master)
    assert done.wait(60) == 0
    assert b'\033[1mC: EHLO a\033[0m' in out and b'\033[32mS: 250 HELP\033[0m' in out


def test_not_there_or_too_strange(explain):
    m = explain.martlet
    done = m.run('explain', '--session', '/nowhere', check=False)
    assert done.returncode == 1 and '/nowhere: No such file or directory' in done.stdout
    out = explain('\x00\x01\xff\nEHLO a\x1b[31m\nQUIT\n')
    assert '\x1b' not in out and 'S: 221' in out
    assert 'explain --session FILE' in m.run('--help')


def test_bh_shows_its_reasoning(explain):
    m = explain.martlet
    done = m.run('-bh', '192.0.2.7', input='EHLO client.test\r\nMAIL FROM:<x@y.test>\r\nRCPT TO:<u9@local.test>\r\nQUIT\r\n')
    for line in ('>>> host in helo_verify_hosts? no (option unset)', '>>> using ACL "check_rcpt"',
                 f'>>> processing ACL check_rcpt "deny" ({m.conf} 12)', '>>>   message: no such user here',
                 '>>> check domains = local.test', '>>> local.test in "local.test"? yes (matched "local.test")',
                 '>>> deny: condition test succeeded in ACL check_rcpt', '>>> end of ACL check_rcpt: DENY',
                 'LOG: H=(client.test) [192.0.2.7] F=<x@y.test> rejected RCPT <u9@local.test>: no such user here'):
        assert line in done.split('\n'), (line, done)
