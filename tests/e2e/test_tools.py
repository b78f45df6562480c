"""The tools around queue and logs (Exim manual, chapter "Exim utilities"): ours under their names, and Debian's on our queue and logs."""
import os
import re
import subprocess

import pytest

from support.martlet import binary
from support.smtp import Client
from support.util import read, wait_for, write

LOG = '''2026-11-21 11:00:00 exim 4.96 daemon started: pid=1, -q30m, listening for SMTP on port 25 (IPv4)
2026-11-21 11:00:01 1abcde{0} <= alice@x.y H=h [1.2.3.4] P=esmtp S=100
2026-11-21 11:00:02 1abcdf{0} <= bob@x.y H=h [1.2.3.4] P=esmtp S=100
2026-11-21 11:00:03 1abcde{0} => joe@q.z R=r T=t
2026-11-21 11:00:03 SMTP connection from [1.2.3.4] lost alice
2026-11-21 11:00:04 1abcdf{0} == joe@q.z R=r T=t defer (-1): foo
2026-11-21 11:00:05 1abcdg{0} <= <> R=1abcde{0} U=exim P=local S=1
2026-11-21 11:00:09 1abcde{0} Completed
2026-11-21 11:00:10 1abcdg{0} => carol@x.y R=r T=t
2026-11-21 11:00:11 1abcdg{0} Completed
2026-11-21 11:00:12.123 +0100 [77] H=(x) [5.6.7.8] F=<bob@x.y> rejected RCPT <q@r>: no
'''
QUEUE = '''25m  2.9K 1abcde{0} <alice@wonderland.example>
          red.king@looking-glass.example
        D done@looking-glass.example

 3h  1.2M 1abcdf{0} <> *** frozen ***
          white.queen@example.net
          x@looking-glass.example

 2d   500 1abcdg{0} <bob@b.example> (bob)
          +D gen@q.example
          y@example.net

'''
LONG = '-00000000abc-1234'
SHORT = '-000abc-12'  # which is all that the tools of Exim 4.96 know


def tool(*args, input='', cwd=None):
    done = subprocess.run([binary(), *args], input=input.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, cwd=cwd)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def debian(peers, name, *args, input=''):
    done = subprocess.run(['perl', os.path.join(peers, 'exim/usr/sbin', name), *args], input=input.encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, env={'PATH': os.environ['PATH'], 'PERL_HASH_SEED': '0'})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# --- as Debian's ---

GREP = ['alice', 'bob', '-I Alice', '-l [5.6.7.8]', '-t 5 alice', '-t 8 .', '-v alice', '-M joe', 'carol', 'nothing', 'x(?=@q.z)|lost']


@pytest.mark.parametrize('args', GREP)
def test_exigrep(peers, tmp_path, args):
    log = write(tmp_path / 'log', LOG.format(SHORT))
    ours = tool('exigrep', *args.split(), log)
    assert ours == debian(peers, 'exigrep', *args.split(), log)
    # The same with longer ids, from the standard input, and from a compressed log.
    assert tool('exigrep', *args.split(), input=LOG.format(LONG)) == (0, ours[1].replace(SHORT, LONG), '')
    subprocess.run(['gzip', log], check=True)
    assert tool('exigrep', *args.split(), log + '.gz') == ours


def test_exigrep_related(tmp_path):
    """-M: what was made because of a message comes along."""
    status, out, _ = tool('exigrep', '-M', 'alice', input=LOG.format(LONG))
    assert status == 0 and f'1abcdg{LONG} => carol@x.y' in out and f'1abcdf{LONG}' not in out
    assert 'carol' not in tool('exigrep', 'alice', input=LOG.format(LONG))[1]


SELECT = ['-c', '-f alice', '-f ^<>$ -i', '-r king -b', '-z -b', '-x -i', '-y 7200 -i', '-o 7200 -b', '-s M -b', '-R -i -f .', '-c -f nobody',
          '-ai -r done', '-f . -l', '-R -l -f .', '-cz', '-izr example.net', '-z -x -c', '-h']


@pytest.mark.parametrize('args', SELECT)
def test_exiqgrep(peers, tmp_path, args):
    fake = write(tmp_path / 'exim', f'#!/bin/sh\necho "$@" >>{tmp_path}/words\ncat {tmp_path}/queue\n', 0o755)
    write(tmp_path / 'queue', QUEUE.format(SHORT))
    ours = tool('exiqgrep', '-E', fake, *args.split())
    assert ours == debian(peers, 'exiqgrep', '-E', fake, *args.split())
    words = read(tmp_path / 'words').split('\n')[:-1]
    assert words[:len(words) // 2] == words[len(words) // 2:]
    write(tmp_path / 'queue', QUEUE.format(LONG))
    assert tool('exiqgrep', '-E', fake, *args.split()) == (0, ours[1].replace(SHORT, LONG), '')


@pytest.mark.parametrize('args', ['', '-b', '-f', '-s'])
def test_exiqsumm(peers, args):
    ours = tool('exiqsumm', *args.split(), input=QUEUE.format(LONG))
    assert ours[0] == 0
    assert ours == debian(peers, 'exiqsumm', *args.split(), input=QUEUE.format(SHORT))


def test_wrong_use(tmp_path):
    assert tool('exiqgrep', '-i')[0] == 1
    assert tool('exiqgrep', '-q')[0] == 1
    assert tool('exiqgrep', '-f', '(')[0] == 1
    assert tool('exigrep')[0] == 2
    assert tool('exigrep', '(', input='x')[0] == 2
    assert tool('exigrep', 'x', str(tmp_path / 'none'))[0] == 1
    assert tool('exiqsumm', input='no queue\n')[0] == 1
    assert tool('exinext')[0] == 1
    assert tool('exim_checkaccess', '1.2.3.4')[0] == 1


def test_exicyclog(tmp_path):
    for n in range(1, 6):
        write(tmp_path / 'mainlog', f'{n}\n')
        if n == 3:
            write(tmp_path / 'rejectlog', 'r\n')
        assert tool('exicyclog', '-k', '3', '-l', f'{tmp_path}/%slog') == (0, '', '')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['mainlog.01', 'mainlog.02.gz', 'mainlog.03.gz', 'rejectlog.01']
    assert read(tmp_path / 'mainlog.01') == '5\n'
    assert subprocess.run(['gzip', '-dc', tmp_path / 'mainlog.03.gz'], stdout=subprocess.PIPE).stdout == b'3\n'
    assert tool('exicyclog', '-l', f'{tmp_path}/%slog') == (0, '', '')  # no log: nothing to do


# --- on a real queue and log ---

@pytest.fixture
def busy(martlet):
    """One message delivered, two that wait (one frozen), one refused."""
    m = martlet(arguments=[], main='queue_domains = later.test\ndomainlist later = later.test', relay_to='later.test')
    with Client(m.port) as c:
        c.mail('ann@x.test', 'u0@local.test', data='Subject: x\r\n\r\nx\r\n')
        c.mail('bob@x.test', 'a@later.test', 'b@later.test', data='Subject: x\r\n\r\n' + 'x' * 70 + '\r\n')
        c.mail('', 'c@later.test', data='Subject: x\r\n\r\nx\r\n')
        c.mail('eve@x.test', 'nobody@elsewhere.test', data='Subject: x\r\n\r\nx\r\n')
    m.wait_log('Completed')
    wait_for(lambda: len(m.queue()) == 2, m.logs)
    m.wait_rest()
    m.run('-Mf', next(q for q in m.queue() if f'{q} <= <>' in m.log()))
    return m


def named(m, name, *args, **kw):
    """The tool under a link of its name."""
    path = os.path.join(m.directory, name)
    if not os.path.exists(path):
        os.symlink(binary(), path)
    command = m._command([], None)
    command[command.index(m.binary)] = path
    done = subprocess.run(command + list(args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, cwd='/', env=m.environment, **kw)
    return done.stdout.decode()


def test_ours_on_a_real_queue(busy):
    m = busy
    ids = m.queue()
    assert sorted(named(m, 'exiqgrep', '-C', m.conf, '-i', '-f', '.').split()) == ids
    assert named(m, 'exiqgrep', '-C', m.conf, '-cz') == '1 matches out of 2 messages\n'
    assert re.search(r'^\S+ From: <bob@x\.test> To: a@later\.test;b@later\.test$', named(m, 'exiqgrep', '-C', m.conf, '-b', '-r', 'b@'), re.M)
    listing = m.run('-bp')
    got = tool('exiqsumm', '-f', input=listing)[1]
    assert re.search(r'^    2 +\d+ +\d+m +\d+m  later\.test$', got, re.M) and re.search(r'^    1 .*later\.test \(f\)$', got, re.M), got
    found = tool('exigrep', 'ann@x', os.path.join(m.directory, 'log', 'mainlog'))[1]
    assert [re.search(' (<=|=>|Completed)', line)[1] for line in found.strip().split('\n')] == ['<=', '=>', 'Completed']
    assert 'has not completed' in tool('exigrep', 'bob@x', os.path.join(m.directory, 'log', 'mainlog'))[1]
    assert named(m, 'exim_checkaccess', '192.0.2.1', 'u0@local.test', '-C', m.conf) == 'Accepted\n'
    assert named(m, 'exim_checkaccess', '192.0.2.1', 'x@elsewhere.test', '-C', m.conf) == 'Rejected:\n550 relay not permitted\n'


def test_exinext_and_exim_dumpdb(martlet):
    m = martlet(arguments=[], relay_to='dead.test', routers='''dead:
  driver = manualroute
  domains = dead.test
  route_list = dead.test 127.0.0.1
  self = send
  transport = dead_smtp
''', transports='''dead_smtp:
  driver = smtp
  port = 1
  allow_localhost
''', retry='* * F,1d,15m')
    with Client(m.port) as c:
        c.mail('ann@x.test', 'a@dead.test', data='Subject: x\r\n\r\nx\r\n')
    m.wait_log('== a@dead.test')
    m.wait_rest()
    got = named(m, 'exinext', '-C', m.conf, 'a@dead.test')
    assert re.search(r'^Transport: \S+ error 111: .*\n  first failed: \d\d-\w{3}-\d{4} \d\d:\d\d:\d\d\n  last tried: .*\n  next try at: .*\n', got, re.M), got
    assert named(m, 'exinext', '-C', m.conf, 'u1@local.test') == 'No retry data found for u1@local.test\n'
    spool = os.path.join(m.directory, 'spool')
    assert '127.0.0.1' in named(m, 'exim_dumpdb', spool, 'retry')
    named(m, 'exim_tidydb', '-t', '0s', spool, 'retry')
    assert 'malformed' not in named(m, 'exim_tidydb', spool, 'retry')
    assert re.match(r'\d\d-\w{3}-\d{4}', named(m, 'exim_msgdate', m.queue()[0]))


# --- Debian's tools on what is ours ---

SHORTENED = {}


def shortened(text):
    """With ids as they were before Exim 4.97: the tools of Debian's Exim 4.96 know no others. The end is a number of ours: messages
    of one millisecond would have the same one."""
    return re.sub(r'\b(\w{6})-\w{5}(\w{6})-\w{4}\b', lambda m: SHORTENED.setdefault(m[0], f'{m[1]}-{m[2]}-{len(SHORTENED):02x}'), text)


def test_debians_tools(busy, peers, tmp_path):
    m = busy
    log = write(tmp_path / 'mainlog', shortened(read(os.path.join(m.directory, 'log', 'mainlog'))))
    status, out, _ = debian(peers, 'eximstats', log)
    assert status == 0
    assert re.search(r'^ *Received +\d+\w* +3 ', out, re.M) and re.search(r'^ *Delivered +\d+\w* +1 ', out, re.M), out
    assert re.search(r'^ +1 +Rejected RCPT: relay not permitted$', out, re.M)
    status, out, _ = debian(peers, 'exigrep', 'ann@x.test', log)
    assert (status, out) == (0, tool('exigrep', 'ann@x.test', log)[1]) and out.count('\n') == 4
    listing = write(tmp_path / 'listing', shortened(m.run('-bp')))
    status, out, _ = debian(peers, 'exiqsumm', input=read(listing))
    assert status == 0 and re.search(r'^ *3 .*TOTAL$', out, re.M), out
    fake = write(tmp_path / 'exim', f'#!/bin/sh\ncat {listing}\n', 0o755)
    assert debian(peers, 'exiqgrep', '-E', fake, '-cz')[1] == '1 matches out of 2 messages\n'


def test_debians_exipick_reads_our_spool(busy, peers, tmp_path):
    m = busy
    for name in os.listdir(os.path.join(m.directory, 'spool/input')):
        if name[-2:] in ('-H', '-D', '-J'):
            text = read(os.path.join(m.directory, 'spool/input', name))
            short = shortened(name[:-2]) + name[-2:]
            write(tmp_path / 'input' / short, text.replace(name, short, 1))
    ids = sorted(shortened(i) for i in m.queue())
    frozen = [i for i in ids if 'frozen' in read(tmp_path / 'input' / (i + '-H'))]
    assert len(frozen) == 1
    got = debian(peers, 'exipick', '--spool', str(tmp_path), '-i')
    assert sorted(got[1].split()) == ids, got
    assert debian(peers, 'exipick', '--spool', str(tmp_path), '-i', '-z')[1].split() == frozen
    assert debian(peers, 'exipick', '--spool', str(tmp_path), '-i', '-f', 'bob@x')[1].split() == [i for i in ids if i not in frozen]
    assert 'later.test' in debian(peers, 'exipick', '--spool', str(tmp_path), '-bp')[1]


def test_links_of_an_installation(tmp_path):
    """packaging/install-links: no file of another package is touched, and a second run changes nothing."""
    script = os.path.join(os.path.dirname(__file__), '../../packaging/install-links')
    directory = tmp_path / 'root/usr/local/sbin'
    directory.mkdir(parents=True)
    write(directory / 'exiqgrep', 'of somebody else\n')
    os.symlink('/nowhere', directory / 'exiwhat')
    for _ in range(2):
        out = subprocess.run([script, 'sbin', 'exigrep', 'exiqgrep', 'exiwhat'], stdout=subprocess.PIPE, check=True, text=True,
                             env={**os.environ, 'MESON_INSTALL_DESTDIR_PREFIX': str(tmp_path / 'root/usr/local')}).stdout
        assert 'exiqgrep' in out and 'exiwhat' in out
        assert os.readlink(directory / 'exigrep') == 'martlet' and os.readlink(directory / 'exiwhat') == '/nowhere'
        assert read(directory / 'exiqgrep') == 'of somebody else\n'


@pytest.mark.parametrize('words, answer', [
    ('-l -u -z -pid 1PANS3-003FPJ-00', '1288014663.000000\tpid 774213\n2010-10-25 13:51:03.000000\tpid 774213\n2010-10-25 14:51:03.000000 BST\tpid 774213\n'),
    ('--unix 1PANS3 E1PANS3-003FPJ-W0', '1288014663.000000\n1288014663.992000\n'),
    ('-u 1PANS3-000003FPJab-0W7E', '1288014663.123456\n'),
    ('-u --b36 1PANS3-003FPJ-Q9', '102953955.945000\n'),
    ('-u -localhost_number=9 1PANS3-003FPJ-TW', '1288014663.150000\n'),
    ('-u --localhost_number 9 1PANS3-000003FPJab-IvRg', '1288014663.021456\n'),
    ('-z zzzzzz', '3769-12-05 03:13:03.000000\n'),
    ('1PANS3-003FPJ-TW', '25-Oct-2010 14:51:03\n'),
])
def test_msgdate(words, answer):
    environment = {**os.environ, 'TZ': 'GMT0BST,M3.5.0/1,M10.5.0'}
    done = subprocess.run([binary(), 'exim_msgdate', *words.split()], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.stdout, done.stderr, done.returncode) == (answer, '', 0)


def test_msgdate_with_a_configuration(tmp_path):
    conf = write(tmp_path / 'conf', f'spool_directory = {tmp_path}\nlog_file_path = {tmp_path}/%slog\nlocalhost_number = 3\n')
    status, out, err = tool('exim_msgdate', '-c', str(conf), '-u', '1PANS3-003FPJ-TW')
    assert (status, out) == (0, '1288014663.150000\n') and err == 'localhost 9 from message-id != given number 3\n'
    for words, error in (('-u --b36 zzzzzz', 'zzzzzz is not base 36'), ('-u -localhost_number=20 1PANS3', 'localhost_number > 16'),
                         ('--zork 1PANS3', 'is unknown'), ('1PANS', 'is not a message id'), ('-localhost_number=x 1PANS3', 'is unknown')):
        status, out, err = tool('exim_msgdate', *words.split())
        assert status == 255 and not out and error in err
