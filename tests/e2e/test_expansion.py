"""Expansions with partners: embedded Perl, shared objects, TLS servers; and how they are shown."""
import os
import re
import socket
import ssl
import subprocess
import threading

import pytest

from support.martlet import binary

pytestmark = pytest.mark.plain

PERL = r"""
sub join_up { return join('+', @_); }
sub nested { return Exim::expand_string('<${perl{join_up}{' . $_[0] . '}{$primary_hostname}}>'); }
sub crash { kill 'SEGV', $$; sleep 10; }
sub count { return ++$count; }
sub noisy { print "to nowhere\n"; warn "noted\n"; return 'quiet'; }
sub is_tainted { local $@; return ! eval { eval('#' . substr($0 . join('', %ENV), 0, 0)); 1 }; }
"""

OBJECT = r"""
#include <string.h>
typedef unsigned char uschar;
int reversed(uschar **yield, int argc, uschar *argv[]) {
  static uschar text[100];
  size_t n = argc > 0 ? strlen((char *)argv[0]) : 0;
  for (size_t i = 0; i < n; i++) text[i] = argv[0][n - 1 - i];
  *yield = text;
  return 0;
}
int refuse(uschar **yield, int argc, uschar *argv[]) { *yield = (uschar *)"no"; return argc == 0 ? 2 : 4; }
int crash(uschar **yield, int argc, uschar *argv[]) { __builtin_trap(); }
"""


@pytest.fixture
def expand(tmp_path):
    def run(*expressions, main='', options=(), command=('-be',)):
        conf = tmp_path / 'conf'
        conf.write_text(f'primary_hostname = host.test\nspool_directory = {tmp_path}/spool\n{main}\n')
        done = subprocess.run([binary(), '-C', str(conf), *options, *command, *expressions], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        run.stderr = done.stderr.decode()
        run.status = done.returncode
        return done.stdout.decode().splitlines()
    tmp_path.chmod(0o755)
    return run


def perl_file(tmp_path):
    path = tmp_path / 'startup.pl'
    path.write_text(PERL)
    return f"perl_startup = do '{path}'"


def test_perl(expand, tmp_path):
    main = perl_file(tmp_path)
    assert expand('${perl{join_up}{a}{b c}}', '${perl{nested}{x}}', '${perl{count}}${perl{count}}', '${perl{noisy}}',
                  main=main)[:4] == ['a+b c', '<x+host.test>', '12', 'quiet']
    assert 'noted' in expand.stderr and 'nowhere' not in expand.stderr
    assert expand('', main="perl_startup = $| = 1; print \"perl begins\\n\";", options=['-ps']) == ['perl begins', '']


def test_a_perl_that_dies_costs_its_call_only(expand, tmp_path):
    assert expand('${perl{count}}${perl{crash}}', '${perl{count}}', main=perl_file(tmp_path)) == [
        'Failed: Perl interpreter: it has ended', '1']


def test_perl_taint_mode(expand, tmp_path):
    main = perl_file(tmp_path)
    assert expand('[${perl{is_tainted}}]', main=main) == ['[]']
    assert expand('[${perl{is_tainted}}]', main=main + '\nperl_taintmode') == ['[1]']


def test_perl_at_start_tells_of_errors(expand):
    broken = 'perl_startup = sub {'
    assert expand('x', main=broken) == ['x']
    assert expand('x', main=broken, options=['-ps']) == [] and expand.status == 1
    assert 'error in perl_startup code: ' in expand.stderr
    assert expand('x', main=broken + '\nperl_at_start', options=['-pd']) == ['x']


def test_shared_object(expand, tmp_path):
    (tmp_path / 'f.c').write_text(OBJECT)
    so = str(tmp_path / 'f.so')
    subprocess.run(['cc', '-shared', '-fPIC', '-o', so, str(tmp_path / 'f.c')], check=True)
    assert expand(f'${{dlfunc{{{so}}}{{reversed}}{{abc}}}}', f'${{dlfunc{{{so}}}{{refuse}}}}',
                  f'${{dlfunc{{{so}}}{{refuse}}{{x}}}}', f'${{dlfunc{{{so}}}{{none}}}}',
                  f'${{dlfunc{{{so}}}{{crash}}}}') == [
        'cba', 'Failed: no', 'Failed: no', f'Failed: dlsym "none" in "{so}" failed: {so}: undefined symbol: none',
        f'Failed: dlfunc{{{so}}}{{crash}} failed: its process ended before it returned']


class TlsEcho:
    """Answers one line with the name that the client asked for."""

    def __init__(self, certificate, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.context.sni_callback = self.name_seen
        self.name = None
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def name_seen(self, connection, name, context):
        self.name = name

    def serve(self):
        while True:
            try:
                plain, _ = self.socket.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(plain, server_side=True) as s:
                    s.sendall(f'{self.name}:{s.recv(100).decode()}'.encode())
            except OSError:
                pass


def test_readsocket_over_tls(expand, authority):
    server = TlsEcho(*authority.issue('sockets.test'))
    at = f'inet:127.0.0.1:{server.port}'
    try:
        assert expand(f'${{readsocket{{{at}}}{{hello}}{{50s:tls=yes}}}}',
                      f'${{readsocket{{{at}}}{{a}}{{50s:sni=sockets.test}}}}') == ['None:hello', 'sockets.test:a']
    finally:
        server.socket.close()


def test_certificates_of_a_session(martlet, authority):
    m = martlet(tls=authority.issue('local.test'), acl_rcpt=r'''
  warn logwrite = ours ${certextract{subject,CN}{$tls_in_ourcert}{<$value>}{none}} ${strlen:${sha256:$tls_in_ourcert}} \
       peer ${certextract{subject}{$tls_in_peercert}{y}{none}}
''')
    done = subprocess.run(['swaks', '--server', '127.0.0.1', '--port', str(m.port), '-tls', '--from', 'a@b.test', '--to',
                           'u0@local.test'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    m.wait_log(r' ours <local\.test> 64 peer none$')


def test_explain(expand):
    lines = expand('a${lc:B$primary_hostname}', command=('explain',))
    assert lines == [
        ' ╭considering: a${lc:B$primary_hostname}',
        ' ├───────text: a',
        ' ├───operator: lc',
        '  ╭considering: B$primary_hostname',
        '  ├───────text: B',
        '  ├──────value: $primary_hostname = host.test',
        '  ├───expanded: B$primary_hostname',
        '  ╰─────result: Bhost.test',
        ' ├─────op-res: bhost.test',
        ' ├───expanded: a${lc:B$primary_hostname}',
        ' ╰─────result: abhost.test',
        'abhost.test']
    assert expand.status == 0
    assert expand('${if eq{a}{b}{c}fail}', command=('explain',))[-2:] == [
        ' ╰failure was forced', 'Failed: "if" failed and "fail" requested  (forced)']
    assert expand.status == 1


def test_debug_shows_the_tree(expand):
    assert expand('${uc:x}', options=['-d-all+expand+noutf8']) == ['X']
    assert re.search(r'^ /considering: \$\{uc:x\}$.*^ \\-----result: X$', expand.stderr, re.M | re.S), expand.stderr


def test_colour_on_a_terminal_only(tmp_path):
    conf = tmp_path / 'conf'
    conf.write_text('primary_hostname = host.test\n')
    tmp_path.chmod(0o755)
    ours, theirs = os.openpty()
    command = [binary(), '-C', str(conf), 'explain', '${lc:X}']
    environment = {k: v for k, v in os.environ.items() if k != 'NO_COLOR'}
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=theirs, env=environment, check=True, timeout=60)
    assert b'\033[' in os.read(ours, 65536)
    assert b'\033[' not in subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    os.close(ours)
    os.close(theirs)


def unix_server(path, answer):
    """Calls answer(connection) for each connection; stops when its socket is closed."""
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(path))
    os.chmod(path, 0o777)
    s.listen()

    def serve():
        while True:
            try:
                with s.accept()[0] as c:
                    answer(c)
            except OSError:
                return
    threading.Thread(target=serve, daemon=True).start()
    return s


def test_saslauthd(expand, tmp_path):
    asked = []

    def answer(c):
        with c.makefile('rb') as f:
            words = [f.read(int.from_bytes(f.read(2), 'big')).decode() for _ in range(4)]
        asked.append(words)
        text = b'OK' if words[:2] == ['fred', 'secret'] else b'NO wrong'
        c.sendall(len(text).to_bytes(2, 'big') + text)

    main = f'saslauthd_socket = {tmp_path}/mux'
    line = '${if saslauthd{{fred}{%s}{smtp}}{yes}{no}}'
    assert expand(line % 'x', main=main) == [f'Failed: cannot connect to saslauthd daemon at {tmp_path}/mux: '
                                             'No such file or directory']
    server = unix_server(tmp_path / 'mux', answer)
    assert expand(line % 'secret', line % 'other', '${if saslauthd{{}{}}{yes}{no}}', main=main) == ['yes', 'no', 'no']
    assert asked == [['fred', 'secret', 'smtp', ''], ['fred', 'other', 'smtp', '']]
    server.close()


def test_readsocket_remembers(expand, tmp_path):
    count = [0]

    def answer(c):
        count[0] += 1
        c.sendall(c.recv(100) + str(count[0]).encode())

    server = unix_server(tmp_path / 's', answer)
    ask = f'${{readsocket{{{tmp_path}/s}}{{a}}{{50s:cache=%s}}}}'
    assert expand(ask % 'yes' + ask % 'yes' + ask % 'no') == ['a1a1a2']
    server.close()
