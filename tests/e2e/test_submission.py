"""Mail from ordinary users of the machine, with no set-uid program: the daemon takes it through a local socket."""
import os
import re
import signal
import socket
import struct

import pytest

from support import procs
from support.util import read, wait_for

pytestmark = pytest.mark.root

TRY_AGAIN = 75


@pytest.fixture
def system(martlet):
    """Started by root; the callers are u0 ... u9 of its place."""
    return lambda **kw: martlet(privileged=True, **kw)


def text_of(m, user='u0'):
    return m.wait_mail(user)[0].decode()


def header(text, name):
    return re.findall(rf'^{name}: (.*)$', text.split('\n\n')[0], re.M)


def test_header_gives_the_recipients(system):
    """-t: everybody gets it, nobody sees Bcc:."""
    m = system()
    out = m.run('-t', input='To: u1@local.test\nCc: u2@local.test\nBcc: u3@local.test\nSubject: x\n\nbody\n.\nnot read\n', user='u5')
    assert out == ''
    for user in ('u1', 'u2', 'u3'):
        text = text_of(m, user)
        assert header(text, 'To') == ['u1@local.test'] and header(text, 'Bcc') == [] and 'u3' not in text.split('\n\n', 1)[1]
        assert text.endswith('\n\nbody\n')
    uid = m.place.uid('u5')
    m.wait_log(r' <= u5@mx\.martlet\.test U=u5 P=local S=\d+')
    assert m.log('panic') == '' and uid


def test_sender_is_who_he_is(system):
    """-f and From: of an untrusted user: the envelope stays his own, Sender: names him; -oM is not heard."""
    m = system(acl_rcpt='', main='message_size_limit = 1M\n')
    m.run('-f', 'boss@local.test', '-oMr', 'magic', '-oMa', '192.0.2.1', '-oMs', 'host.test', '-F', 'Nobody', 'u0@local.test',
          input='From: boss@local.test\nSubject: x\n\nx\n', user='u2')
    text = text_of(m)
    assert header(text, 'Return-path') == ['<u2@mx.martlet.test>']
    assert header(text, 'From') == ['boss@local.test'] and header(text, 'Sender') == ['Nobody <u2@mx.martlet.test>']
    assert 'magic' not in text and '192.0.2.1' not in text
    m.wait_log(r' <= u2@mx\.martlet\.test U=u2 P=local ')


def test_trusted_user(system):
    m = system(main='trusted_users = u3')
    m.run('-f', 'list@lists.test', '-oMr', 'magic', 'u0@local.test', input='From: a@b.test\nSubject: x\n\nx\n', user='u3')
    text = text_of(m)
    assert header(text, 'Return-path') == ['<list@lists.test>'] and header(text, 'Sender') == []
    m.wait_log(r' <= list@lists\.test U=u3 P=magic ')


def test_untrusted_set_sender(system):
    m = system(main='untrusted_set_sender = u1@b.test')
    for sender, wanted in (('u1@b.test', '<u1@b.test>'), ('<>', '<>'), ('a@b.test', '<u4@mx.martlet.test>')):
        m.run('-f', sender, 'u0@local.test', input=f'Subject: {sender}\n\nx\n', user='u4')
        wait_for(lambda: [t for t in m.mail('u0') if f'Subject: {sender}\n'.encode() in t], m.logs)
        text = [t for t in m.mail('u0') if f'Subject: {sender}\n'.encode() in t][0].decode()
        assert header(text, 'Return-path') == [wanted], (sender, text)


def test_variables_name_the_caller(system):
    m = system(main='acl_not_smtp = acl_local', acl='''acl_local:
  accept add_header = X-Caller: $caller_uid/$caller_gid/$sender_ident/$authenticated_id/$received_protocol
''')
    m.run('u0@local.test', input='Subject: x\n\nx\n', user='u6')
    uid = m.place.uid('u6')
    assert header(text_of(m), 'X-Caller') == [f'{uid}/{uid}/u6/u6/local']


def test_errors_and_exit_status(system):
    m = system(main='message_size_limit = 2K\nacl_not_smtp = acl_local', acl='''acl_local:
  deny condition = ${if eq{$h_subject:}{no}}
       message = not this
  accept
''')
    def failing(*args, input):
        done = m.run('-oep', *args, input=input, user='u2', check=False)
        return done.returncode, done.stdout
    m.allow_panic = 'found in headers$'
    assert failing('-t', input='Subject: x\n\nx\n') == (1, 'martlet: no recipients in message\n')
    assert failing('-t', input='To: a@\nCc: u0@local.test\n\nx\n') == (
        1, 'martlet: invalid address:  a@: domain missing or malformed\n')
    assert failing('-t', input='To: a@, "b\n\nx\n') == (
        1, 'martlet: invalid addresses:\n  a@: domain missing or malformed\n  "b: unmatched doublequote in local part\n')
    assert failing('a@@b', input='Subject: x\n\nx\n')[0] == 1
    assert failing('g: u0@local.test;', input='Subject: x\n\nx\n') == (
        1, 'martlet: bad recipient address "g: u0@local.test;": missing or malformed local part (expected word or "<")\n')
    status, out = failing('u0@local.test', input='Subject: x\n\n' + 'x' * 60 + '\n' * 4000)
    assert status == 1 and 'message too big (limit set to 2048)' in out
    status, out = failing('u0@local.test', input='Subject: no\n\nx\n')
    assert status == 1 and 'rejected by non-SMTP ACL: not this' in out
    assert m.mail('u0') == [] and m.queue() == []


def test_error_by_mail(system):
    m = system(main='message_size_limit = 2K\nqualify_domain = local.test')
    done = m.run('u0@local.test', input='Subject: large\n\n' + 'x' * 60 + '\n' * 4000, user='u2', check=False)
    assert (done.returncode, done.stdout) == (1, '')
    assert 'Subject: Mail failure - message too big' in text_of(m, 'u2')


def test_bad_addresses_of_the_header_do_not_stop_the_others(system):
    m = system(main='qualify_domain = local.test\nlog_selector = +received_recipients')
    m.allow_panic = 'found in headers$'
    done = m.run('-t', input='To: a@, b b\nCc: (who) u0\nX: y\n\nx\n', user='u2', check=False)
    assert (done.returncode, done.stdout) == (0, '')
    report = text_of(m, 'u2')
    assert 'Subject: Mail failure - malformed recipient address' in report
    assert ('  a@: domain missing or malformed\n  b b: missing or malformed local part (expected word or "<")\n\n'
            'These addresses have been ignored. The other addresses in the message were\n'
            'syntactically valid and have been passed on for an attempt at delivery.\n') in report
    assert 'Received:' not in report.split('including all the headers')[1]
    assert '\n\nx\n' in text_of(m, 'u0')
    m.wait_log('<= u2@local.test U=u2 .* for u0$')
    m.wait_log('bad addresses found in headers$')
    done = m.run('-t', '-oee', input='Subject: x\n\nx\n', user='u1', check=False)
    assert done.returncode == 0 # told by mail
    assert m.run('-t', '-oee', '-f', '<>', input='Subject: x\n\nx\n', user='u1', check=False).returncode == 2


def test_foreground_delivery_is_done_when_the_command_returns(system):
    m = system()
    m.run('-odi', 'u0@local.test', input='Subject: x\n\nx\n', user='u2')
    assert len(m.mail('u0')) == 1


def test_queued_only(system):
    m = system(arguments=[])
    m.run('-odq', 'u0@local.test', input='Subject: x\n\nx\n', user='u2')
    assert len(wait_for(m.queue, m.logs)) == 1 and m.mail('u0') == []


def test_smtp_on_standard_input(system):
    m = system()
    p = m.popen('-bs', user='u7')
    def say(line, code):
        if line:
            p.stdin.write(line.encode() + b'\r\n')
            p.stdin.flush()
        while True:
            got = p.stdout.readline().decode()
            if got[3:4] != '-':
                assert got.startswith(code), got
                return
    say(None, '220')
    say('EHLO x.test', '250')
    say('MAIL FROM:<boss@local.test>', '250')
    say('RCPT TO:<u0@local.test>', '250')
    say('DATA', '354')
    say('Subject: x\r\n\r\nx\r\n.', '250')
    say('MAIL FROM:<>', '250')
    say('RCPT TO:<nobody@local.test>', '550')
    say('QUIT', '221')
    assert p.stdout.read() == b'' and p.wait(60) == 0
    assert header(text_of(m), 'Return-path') == ['<u7@mx.martlet.test>']
    m.wait_log(r' <= u7@mx\.martlet\.test U=u7 P=local-esmtp ')


def test_batched_smtp(system):
    m = system()
    mail = 'MAIL FROM:<a@b.test>\nRCPT TO:<u0@local.test>\nDATA\nSubject: x\n\nx\n.\n'
    assert m.run('-bS', input=mail + mail, user='u7') == ''
    m.wait_mail('u0', 2)
    done = m.run('-bS', input=mail + 'RCPT TO:<u1@local.test>\nDATA\n', user='u7', check=False)
    assert done.returncode == 1 and '1 previous message was successfully processed.' in done.stdout
    m.wait_mail('u0', 3)


def test_two_users_at_the_same_time(system):
    """Each message keeps its user, also when their bytes come in turns."""
    m = system()
    clients = [(u, m.popen('-i', 'u0@local.test', user=u)) for u in ('u3', 'u4')]
    for part in range(40):
        for user, p in clients:
            p.stdin.write((f'Subject: of {user}\n\n' if part == 0 else f'{user} says {part}\n' * 50).encode())
            p.stdin.flush()
    for user, p in clients:
        p.stdin.close()
        assert p.wait(60) == 0, p.stdout.read()
    texts = [t.decode() for t in m.wait_mail('u0', 2)]
    assert sorted(header(t, 'Subject')[0] for t in texts) == ['of u3', 'of u4']
    for text in texts:
        user = header(text, 'Subject')[0][3:]
        body = text.split('\n\n', 1)[1]
        assert header(text, 'Return-path') == [f'<{user}@mx.martlet.test>']
        assert body == ''.join(f'{user} says {n}\n' * 50 for n in range(1, 40))


def test_large_body(system):
    m = system()
    line = b'0123456789' * 7 + b'\n'
    m.run('-i', 'u0@local.test', input=b'Subject: x\n\n' + line * 100000, user='u2')
    assert m.wait_mail('u0')[0].split(b'\n\n', 1)[1] == line * 100000


def test_command_that_is_killed_sends_nothing(system):
    m = system()
    p = m.popen('u0@local.test', user='u2')
    p.stdin.write(b'Subject: half\n\n' + b'x\n' * 100000)
    p.stdin.flush()
    wait_for(lambda: m.spool_files(), 'a spool file')
    for pid in m.place.processes():
        if m.binary in read(f'/proc/{pid}/cmdline') and '-bd' not in read(f'/proc/{pid}/cmdline'):
            procs.kill(pid, signal.SIGKILL)
    p.wait(60)
    wait_for(lambda: not m.spool_files(), lambda: f'the spool to be empty: {m.spool_files()}')
    m.run('-odi', 'u1@local.test', input='Subject: whole\n\nx\n', user='u2')
    assert m.mail('u0') == [] and len(m.mail('u1')) == 1


def test_queue_of_a_user(system):
    """Who is no administrator sees and removes his own messages, and nothing else."""
    m = system(main='admin_groups = u9', arguments=[])
    for user in ('u2', 'u3'):
        m.run('-odq', 'u0@local.test', input='Subject: x\n\nx\n', user=user)
    listed = m.run('-bp', user='u2')
    own = re.findall(r' (\S+) <(\S+)@mx', listed)
    assert [name for _, name in own] == ['u2'], listed
    other = [i for i in m.queue() if i != own[0][0]][0]
    for what in ('-Mvl', '-Mvh', '-Mvb', '-Mf', '-Mg'):
        done = m.run(what, other, user='u2', check=False)
        assert done.returncode == 1 and 'ermission denied' in done.stdout, (what, done.stdout)
    done = m.run('-Mrm', other, user='u2', check=False)
    assert 'ermission denied' in done.stdout and len(m.queue()) == 2
    assert m.run('-q', user='u2', check=False).returncode == 1
    assert 'no name of a queue' in m.run('-bp', '-qG..', user='u2', check=False).stdout
    assert 'has been removed' in m.run('-Mrm', own[0][0], user='u2')
    assert m.queue() == [other]
    # An administrator by his group.
    assert other in m.run('-bp', user='u9') and 'Subject: x' in m.run('-Mvh', other, user='u9')
    assert '1\n' == m.run('-bpc', user='u9')
    m.run('-M', other, user='u9')
    m.wait_mail('u0')
    m.wait_empty()


def test_no_daemon(system):
    m = system(daemon=False)
    done = m.run('u0@local.test', input='Subject: x\n\nx\n', user='u2', check=False)
    assert done.returncode == TRY_AGAIN
    assert 'the mail daemon does not answer on /run/martlet/submission' in done.stdout and 'start it' in done.stdout


def test_no_socket_wanted(system):
    m = system(main='submission_socket =')
    done = m.run('u0@local.test', input='Subject: x\n\nx\n', user='u2', check=False)
    assert done.returncode == TRY_AGAIN and 'submission_socket is empty' in done.stdout


def test_place_of_the_socket(system):
    """The option names it; a reload keeps it open, and it goes with the daemon."""
    m = system(main='submission_socket = /run/post')
    path = m.place.path('/run/post')
    before = os.stat(path).st_ino
    m.run('-odi', 'u0@local.test', input='Subject: x\n\nx\n', user='u2')
    m.reload()
    m.wait_log('SIGHUP received')
    m.run('-odi', 'u0@local.test', input='Subject: x\n\nx\n', user='u2')
    assert os.stat(path).st_ino == before and len(m.mail('u0')) == 2
    m.terminate()
    assert not os.path.exists(path)


def test_configuration_that_users_may_not_read(system):
    """As Debian's: the command needs none when it does not name one."""
    m = system(arguments=('-q30m',))
    m.place.etc('martlet/martlet.conf', read(m.conf), 0o600)
    m.terminate()
    m.conf = '/etc/martlet/martlet.conf'
    m.start()
    out = m.place.run([m.binary, '-odi', '-oi', 'u0@local.test'], user='u2', input='Subject: x\n\nx\n')
    assert out == '' and len(m.mail('u0')) == 1
    assert m.place.run([m.binary, '-bp'], user='u2') == ''


def test_daemon_without_root(martlet):
    """Its socket is in the spool directory; it knows its callers all the same."""
    m = martlet(inside=True)
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input='Subject: x\n\nx\n', user='u2')
    assert header(m.mail('u0')[0].decode(), 'Return-path') == ['<u2@mx.martlet.test>']
    m.wait_log(r' <= u2@mx\.martlet\.test U=u2 P=local ')


# What speaks to the socket is not always our own program.

def frame(kind, data=b'', length=None):
    return struct.pack('=II', kind, len(data) if length is None else length) + data


HOSTILE = [
    b'', b'\0', b'GET / HTTP/1.0\r\n\r\n', frame(1), frame(1, b'\0' * 100), frame(1, length=4 << 20), frame(1, length=0xffffffff),
    frame(2, b'x'), frame(1, b'\0\0\0\1' + b'\xff' * 2000), frame(1, b'\0\0\0\1' + b'\0\0\0\2x' + b'\0' * 4000), frame(6, b'\0\0\0\0'),
    frame(1, b'\0\0\0\1' + b'\0\0\0\2x' + b'\0' * 15 + b'\0' * 60 + b'\0' * 16 + b'\0\0\0\0' + b'\0\1\x86\xa1' + b'\0\0\0\1' * 100001),
]


def test_hostile_client(martlet):
    m = martlet(inside=True)
    path = m.outside('spool/submission')
    before = m.alive()
    for data in HOSTILE + [h[:n] for h in HOSTILE for n in (3, 8, 20)]:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(path)
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass
    m.run('-odi', 'u0@local.test', input='Subject: x\n\nx\n', user='u2')
    assert len(m.mail('u0')) == 1 and m.alive() == before


def test_one_user_cannot_take_all_places(martlet):
    m = martlet(inside=True, main='worker_processes = 1')
    path = m.outside('spool/submission')
    taken = []
    for n in range(65):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(path)
        taken.append(s)
    assert b'too many messages' in taken[-1].recv(1000)
    m.run('-odi', 'u0@local.test', input='Subject: x\n\nx\n', user='u2')
    assert len(m.mail('u0')) == 1
    for s in taken:
        s.close()


def test_what_cannot_be_taken_comes_back_whole(martlet):
    """The body, too; as Debian's Exim has it."""
    m = martlet(privileged=True, arguments=[], main='qualify_domain = local.test\n')
    text = 'From: u1\nX-Last: z\n\nbody\n' + 'more\n' * 20000
    m.allow_panic = 'no recipients found in headers$'
    m.run('-odi', '-bnq', 'u1', user='u0', check=False, input=text)
    m.run('-odi', '-t', user='u0', check=False, input=text[:200])
    first, second = sorted(m.wait_mail('u0', 2), key=len, reverse=True)
    copy = b'\n------ This is a copy of your message, including all the headers. ------\n\n'
    assert first.endswith(copy + b'\n' + text.encode()) or first.endswith(b' characters of the body are included. ------\n')
    assert first.split(copy)[1].startswith(b'\nFrom: u1\nX-Last: z\n\nbody\nmore\n')
    assert b'no recipient addresses' in second and second.endswith(b'\n\n' + text[:200].split('\n\n')[1].encode())


def test_who_called_from_where(system):
    """log_selector = +arguments: also of those who may not write the log; what only looks at something is not told."""
    m = system(main='log_selector = +arguments', arguments=[])
    m.wait_log(r' cwd=/\S* \d+ args: \S*martlet .*-bd')
    m.run('-f', '', '-odq', 'u0@local.test', 'odd name@local.test', 'caf\u00e9@local.test', input='Subject: x\n\nx\n', user='u5', check=False, err=False)
    m.wait_log(r' cwd=/\S* \d+ args: \S*martlet .*-f "" -odq u0@local\.test "odd name@local\.test" caf\\303\\251@local\.test$')
    m.run('-bt', 'u0@local.test')
    m.run('-bpc')
    m.wait_log(r' args: \S*martlet .*-bpc$')
    assert ' -bt ' not in m.log() and m.log('panic') == ''


def test_long_calls_are_cut(system):
    m = system(main='log_selector = +arguments', arguments=[])
    m.run('-odq', *(f'user{i}@local.test' for i in range(2000)), input='Subject: x\n\nx\n', user='u5')
    m.wait_log(r' args: \S*martlet .*-odq user0@local\.test .* \.\.\.$')
    assert max(map(len, m.log().split('\n'))) < 8200
