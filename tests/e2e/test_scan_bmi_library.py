"""Brightmail's client library (F01): an object of the tests with the SDK's calls, loaded by a process of its own."""
import os
import re
import subprocess
import threading

import pytest

from support.martlet import ID, TOP
from support.smtp import Client
from support.util import read, wait_for, write
from test_scan_bmi import ROUTERS, RUN, send

pytestmark = pytest.mark.plain
VERDICTS = 'verdict u0,u4 deliver 3 -\nverdict u1 alternate 5,6 X-Junk: yes\nverdict u2,u3 drop - -\n'


@pytest.fixture
def library(scratch):
    path = os.path.join(scratch, 'client.so')
    subprocess.run(['cc', '-shared', '-fPIC', f'-I{TOP}/src', '-o', path, f'{TOP}/tests/support/bmi_client.c'], check=True)
    return path


@pytest.fixture
def judged(martlet, scratch, library):
    def start(conf, option='', library=library, main='', **kw):
        os.makedirs(f'{scratch}/trace', exist_ok=True)
        os.chmod(f'{scratch}/trace', 0o777)
        write(f'{scratch}/bmi.cfg', conf and f'trace {scratch}/trace/calls\n{conf}')
        return martlet(main=f'bmi_config_file = {scratch}/bmi.cfg\nbmi_library = {library}\nlog_selector = +bmi\n{main}',
                       acl_rcpt=RUN.replace('@OPTION@', option), routers=ROUTERS, allow_panic='BMI:', **kw)
    return start


def test_verdicts(judged, scratch):
    m = judged(VERDICTS, main='queue_only\n')
    send(m, 'u0', 'u1', 'u2', 'u3', text='Subject: x\r\nX-Long: a\r\n b\r\n\r\n' + 10000 * 'body body\r\n')
    header = m.run('-Mvh', re.search(ID, str(wait_for(m.queue, 'the queue'))).group(0))
    assert len(re.findall(r'^--?bmi_verdicts \S+$', header, re.M)) == 1
    m.stop()
    m.start()  # with a queue run
    # dmVyZGljdA== came in two lines.
    assert 'X-Plain: 1 <dmVyZGljdA==> <3>' in str(m.wait_mail('u0')[0])
    assert 'X-Junk: yes' in str(m.wait_mail('u1')[0])
    m.wait_log('=> :blackhole: <u2@local.test> R=drop')
    for child in ('u4', 'u5'):  # of u3, and not judged by u4's own verdict
        m.wait_log(f'=> :blackhole: <{child}@local.test> R=drop')
    assert 'BMI=deliver,alternate,drop' in m.log()
    calls = re.sub(r'(bmiAccumulateBody <> <>\n)+', r'\1', read(f'{scratch}/trace/calls'))
    assert calls.startswith('bmiInitSystem <> <>\nbmiInitMessage <> <>\nbmiProcessConnection <client.test> <127.0.0.1>\nbmiProcessFROM <a> <b.test>\n'
                            'bmiAccumulateTO <u0@local.test> <>\nbmiOptinMset <spam,phish> <>\nbmiAccumulateTO <u1@local.test> <spam,phish>\n'
                            'bmiOptinFree <> <>\nbmiOptinMset <a,b> <>\nbmiAccumulateTO <u2@local.test> <a,b>\nbmiOptinFree <> <>\n'
                            'bmiAccumulateTO <u3@local.test> <>\nbmiEndTO <> <>\nbmiAccumulateHeaders <Received>'), calls
    assert calls.endswith('bmiAccumulateHeaders <Subject> <x>\nbmiAccumulateHeaders <X-Long> <a\n b>\nbmiEndHeaders <> <>\nbmiAccumulateBody <> <>\n'
                          'bmiEndBody <100000> <>\nbmiEndMessage <> <>\n' + 3 * 'bmiCreateStrFromVerdict <> <>\n'), calls


def test_empty_sender_and_nobody_judged(judged, scratch):
    m = judged('')
    with Client(m.port, timeout=100) as c:
        assert c.mail('', 'u0@local.test', data='Subject: x\r\n\r\nbody\r\n')[0] == 250
    assert 'X-Plain: 1 <> <>' in str(m.wait_mail('u0')[0])


TROUBLE = {
    'fails': ('fail bmiInitSystem', 'bmiInitSystem: error 7'), 'fails late': ('fail bmiEndMessage', 'bmiEndMessage: error 7'),
    'fails in the body': ('fail bmiAccumulateBody', 'bmiAccumulateBody: error 7'),
    'crashes': ('crash bmiAccumulateTO', 'the client library: its process ended before it returned'),
    'crashes late': (VERDICTS + 'crash bmiCreateStrFromVerdict', 'the client library: its process ended before it returned'),
    'somebody unknown': (VERDICTS + 'verdict ? drop - -', 'malformed answer'),
    'no end of recipients': ('endless\nverdict u0 drop - -', 'too long a verdict'),
    'rules that are none': ('verdict u0 drop x -', 'malformed answer'),
}


@pytest.mark.parametrize('conf, error', TROUBLE.values(), ids=list(TROUBLE))
def test_trouble(judged, conf, error):
    m = judged(conf)
    send(m, 'u0')
    assert 'X-Plain: 1 <> <>' in str(m.wait_mail('u0')[0])
    assert f'BMI: {error}: message accepted without verdicts' in m.log('panic')


def test_no_library(judged, scratch):
    m = judged('', library='/nonexistent/client.so')
    send(m, 'u0')
    assert 'X-Plain: 1 <> <>' in str(m.wait_mail('u0')[0]) and 'BMI: cannot load the client library: /nonexistent/client.so' in m.log('panic')
    m = judged('', library='libc.so.6', option='/defer_on_error')
    send(m, 'u0', expect=451)
    assert 'BMI: the client library lacks: bmiInitSystem: message deferred' in m.log('panic')
    m = judged('')
    os.unlink(f'{scratch}/bmi.cfg')
    send(m, 'u0')
    assert 'BMI: cannot read bmi_config_file: No such file or directory' in m.log('panic')


def test_hanging_holds_up_nobody_else(judged, scratch):
    m = judged('hang bmiEndBody')
    threading.Thread(target=lambda: pytest.raises(Exception, send, m, 'u0'), daemon=True).start()
    wait_for(lambda: os.path.exists(f'{scratch}/trace/calls') and 'bmiEndBody' in read(f'{scratch}/trace/calls'), 'the library')
    write(f'{scratch}/bmi.cfg', VERDICTS)
    send(m, 'u1')
    assert 'X-' in str(m.wait_mail('u1')[0])
