"""What Debian's Exim 4.96 was seen to do with queued messages, bounces and the command line, where it is easy to differ."""
import os
import re
import signal

import pytest

from support import procs
from support.util import free_port, read, wait_for, write

pytestmark = pytest.mark.plain

ROUTERS = '''
bad:
  driver = redirect
  allow_fail
  local_parts = bad
  data = :fail: no such thing\\nsecond line of it
later:
  driver = redirect
  allow_defer
  local_parts = later
  data = :defer: not now
special:
  driver = accept
  local_parts = pipe : full : tempfail
  transport = $local_part_data
'''
TRANSPORTS = '''
pipe:
  driver = pipe
  command = /bin/sh -c "echo said; exit 3"
  return_output
tempfail:
  driver = pipe
  command = /bin/sh -c "exit 75"
full:
  driver = appendfile
  file = $spool_directory/../mail/full
  quota = 10
'''


@pytest.fixture
def queue(martlet):
    def make(**gaps):
        return martlet(daemon=False, routers=ROUTERS, transports=TRANSPORTS, **gaps)
    return make


def send(m, *to, sender='u0@local.test', options=()):
    m.run('-odi', '-f', sender, *options, *to, input='Subject: x\n\nx\n')


def bounces(m):
    return [b if isinstance(b, str) else b.decode() for b in m.mail('u0')]


def failed(text):
    return re.search(r'address\(es\) failed:\n\n(.*?)\n--', text, re.S)[1].split('\n')


def until_empty(m):
    """Queue runs until the retry times (of one second) have run out."""
    def ran():
        m.run('-qff')
        return not m.queue()
    wait_for(ran, m.logs)


def test_all_recipients_of_a_dead_host_fail_together(queue):
    m = queue(retry='* * F,1s,1s', smarthost='127.0.0.1', client=f'port = {free_port()}')
    send(m, 'a@relay.test', 'b@relay.test', 'c@relay.test')
    until_empty(m)
    assert len(bounces(m)) == 1, m.logs()
    assert len(re.findall(r'\*\* [abc]@relay.test: retry timeout exceeded', m.log())) == 3


def test_why_a_local_delivery_ran_out_of_time(queue):
    m = queue(retry='* * F,1s,1s')
    send(m, 'full@local.test')
    until_empty(m)
    send(m, 'tempfail@local.test')
    until_empty(m)
    assert sorted(failed(b)[1] for b in bounces(m)) == ['    local delivery failed: retry timeout exceeded',
                                                        '    mailbox is full: retry timeout exceeded']


def test_texts_and_order_of_a_bounce(queue):
    m = queue(main='bounce_message_text = "A word of ours.\\n"\nerrors_reply_to = help@local.test')
    send(m, 'bad@local.test', 'pipe@local.test', 'nobody@local.test')
    text, = bounces(m)
    assert failed(text)[:6] == ['  pipe@local.test', '    local delivery failed', '  bad@local.test', '    no such thing', '    second line of it',
                                '  nobody@local.test'], text
    assert re.findall(r'Final-Recipient: rfc822;(\w+)', text) == ['pipe', 'nobody', 'bad'], text
    assert 'delivery software.\nA word of ours.\n\nA message that' in text
    assert re.search(r'  nobody@local.test\nReply-To: help@local.test\nAuto-Submitted: auto-replied\nFrom: ', text), text
    assert r'** bad@local.test R=bad : no such thing\nsecond line of it' in m.log()


def test_given_up_by_hand(queue):
    m = queue()
    send(m, 'later@local.test')
    m.run('-Mg', *m.queue())
    assert re.search(r' cancelled by \w+$', m.log(), re.M) and '**' not in m.log() and not m.queue(), m.logs()
    text, = bounces(m)
    assert failed(text)[0] == '  later@local.test'
    send(m, 'later@local.test', sender='<>')
    m.run('-Mg', *m.queue())
    assert not m.queue() and 'error ignored' not in m.log() and len(bounces(m)) == 1, m.logs()


def test_system_filter_in_its_order(queue, scratch):
    f = write(scratch + '/filter', '# Exim filter\nunseen save /dev/null\nunseen pipe "/bin/cat"\n')
    m = queue(main=f'system_filter = {f}\nsystem_filter_file_transport = maildir\nsystem_filter_pipe_transport = tempfail')
    send(m, 'u1@local.test')
    lines = re.findall(r'[=*-][=*>] (/dev/null|\|/bin/cat) <system-filter>', m.log())
    assert lines == ['/dev/null', '|/bin/cat'], m.logs()


def test_deliver_time_of_what_waits(queue):
    m = queue(main='log_selector = +deliver_time')
    send(m, 'later@local.test')
    send(m, 'full@local.test')
    assert re.search(r'== later@local.test R=later defer \(-1\) DT=\S+s: not now$', m.log(), re.M), m.logs()
    assert re.search(r'== full@local.test R=special T=full defer \(-22\) DT=\S+s: mailbox is full', m.log()), m.logs()


def test_local_deliveries_only(queue):
    m = queue(smarthost='127.0.0.1', client=f'port = {free_port()}')
    send(m, 'a@relay.test', options=['-odq'])
    m.run('-ql')
    assert re.search(r'== a@relay.test R=\w+ T=\w+ defer \(-55\): remote deliveries suppressed$', m.log(), re.M), m.logs()


@pytest.mark.parametrize('words', ['-bd -bt x@y', '-bt x@y -q', '-q -t', '-R x a@b', '-bs -t', '-bs -q', '-bS -bt x@y', '-bd a@b', '-bP -Mrm 1abcde-000000-00',
                                   '-be -bd', '-bi -bt x@y'])
def test_words_that_contradict_each_other(queue, words):
    m = queue()
    done = m.run(*words.split(), check=False, input='')
    assert done.returncode == 1 and done.stdout.endswith('incompatible command-line options or arguments\n'), done.stdout


@pytest.mark.parametrize('words', ['-q', '-qff', '-R x', '-S x', '-bpc', '-be x', '-bt u1@local.test', '-bP qualify_domain', '-qGother -bp'])
def test_words_that_go_together(queue, words):
    assert queue().run(*words.split(), check=False, input='').returncode == 0


def test_a_daemon_and_a_word_that_it_does_not_mind(queue):
    m = queue()
    pid_file = m.directory + '/own.pid'
    m.run('-bV', '-bd', '-oX', f'127.0.0.1.{free_port()}', '-oP', pid_file)
    pid = int(wait_for(lambda: os.path.exists(pid_file) and read(pid_file).strip(), 'the daemon to be there'))
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not procs.alive(pid), 'the daemon to end')


def test_retry_rules_that_never_end(queue, scratch):
    m = queue()
    for rule in ('F,0s,1s', 'G,0s,1s,2', 'F,1h,0s'):
        conf = write(scratch + '/conf', f'begin retry\n* * {rule}\n')
        done = m.run('-C', conf, '-brt', 'a.b', check=False)
        assert done.returncode == 1 and 'bad parameters for retry rule' in done.stdout, done.stdout


def test_report_about_a_message_that_was_to_be_queued(queue):
    """-odq is about the message: the report of its rejection goes out."""
    m = queue(main='acl_not_smtp = refuse\nbounce_message_file = /nowhere/texts', acl='refuse:\n  accept senders = :\n  deny message = not this one\n')
    m.run('-odq', '-f', 'u0@local.test', 'u1@local.test', input='Subject: x\n\nx\n', check=False)
    m.wait_mail('u0')
    assert 'not this one' in bounces(m)[0]
    m.wait_empty()


def test_texts_that_cannot_be_read(queue):
    m = queue(main='bounce_message_file = /nowhere/texts')
    send(m, 'bad@local.test')
    line = ' Failed to open /nowhere/texts for error message texts: No such file or directory'
    assert line in m.log() and 'no such thing' in bounces(m)[0]
    open(m.directory + '/log/paniclog', 'w').close()


def test_delivery_of_what_is_not_there(queue):
    m = queue()
    for option in ('-M', '-Mc'):
        assert m.run(option, '1abcde-000000-00', check=False).returncode == 0
    assert 'not found' in m.log()


def test_sent_for_somebody_else(queue):
    """Who may use -f says nothing about himself with it."""
    m = queue()
    for options, known in (((), True), (('-f', 'a@b.test'), False), (('-f', 'a@b.test', '-oMai', 'me'), True)):
        m.run('-odq', *options, 'u1@local.test', input='Subject: x\n\nx\n')
        header = m.run('-Mvh', *m.queue())
        assert ('\n-local\n' in header) == (not options)
        assert ('\n-auth_id ' in header) == known and ('\n-auth_sender ' in header) == (not options), header
        m.run('-Mrm', *m.queue())


def test_named_queue_in_the_log(queue):
    m = queue(retry='* * F,1h,1h')
    send(m, 'later@local.test')
    m.run('-MG', 'aside', *m.queue())
    m.run('-qGaside')
    assert re.search(r'== later@local.test Q=aside routing defer \(-52\): retry time not reached$', m.log(), re.M), m.logs()
