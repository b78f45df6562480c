"""Options of local transports that are wrong, or meet each other: what Debian's Exim 4.96 logs and writes was recorded here."""
import os
import re

import pytest

from support.util import read

MESSAGE = 'From: a@b.test\nSubject: hi\n\nbody line\n.dot\n'
ROUTER = 'all:\n  driver = accept\n  domains = +local_domains\n  local_parts = u0 : u1 : u2\n  transport = t'


def deliver(martlet, scratch, options, *to, driver='appendfile', routers=ROUTER, sender='a@b.test', transports='', allow_panic='.', **gaps):
    os.makedirs(f'{scratch}/box', exist_ok=True)
    os.chmod(f'{scratch}/box', 0o777)
    lines = ''.join(f'  {x}\n' for x in options.replace('@BOX@', f'{scratch}/box').split('\n'))
    m = martlet(daemon=False, routers=routers.replace('@BOX@', f'{scratch}/box'), allow_panic=allow_panic,
                transports=f't:\n  driver = {driver}\n{lines}\n{transports}'.replace('@BOX@', f'{scratch}/box'), **gaps)
    m.run('-odi', '-f', sender, *(to or ('u0@local.test',)), input=MESSAGE, check=False)
    return m


FILE = 'file = @BOX@/$local_part_data\n'
DEFERRED = [  # options, what stands behind "defer ", is it a line of its own in the main log too?
    (FILE + 'user = ${if eq{1}{1}{nonesuch}}', r'\(-29\): Failed to find user "nonesuch" from expanded string ".*" for the t transport', True),
    (FILE + 'group = ${bad}', r'\(-28\): Failed to expand group string "\$\{bad\}" for the t transport: unknown variable', True),
    (FILE + 'home_directory = ${bad}', r'\(-27\): home directory "\$\{bad\}" failed to expand for t transport: unknown variable', True),
    (FILE + 'current_directory = rel', r'\(-21\): current directory path "rel" is not absolute for t transport', True),
    (FILE + 'return_path = ${bad}', r'\(-27\): Failed to expand return path "\$\{bad\}" in t transport: unknown variable', True),
    (FILE + 'headers_add = ${bad}', r'\(-25\): failed to expand headers_add or headers_remove while writing to /.*/u0: unknown variable', False),
    (FILE + 'message_prefix = ${bad}', r'\(-27\): Expansion of "\$\{bad\}" \(prefix for t transport\) failed$', False),
    (FILE + 'message_size_limit = abc', r'\(-1\): invalid message_size_limit in t transport: integer expected but "abc" found', False),
    (FILE + 'message_size_limit = ${if eq{1}{2}{3}fail}', r'\(-1\): failed to expand message_size_limit in t transport: "if" failed', False),
    (FILE + 'quota = ${bad}', r'\(-1\): Expansion of "\$\{bad\}" in t transport failed: unknown variable', False),
    (FILE + 'quota = xx', r'\(-1\): Malformed value "xx" \(expansion of "xx"\) in t transport', False),
    (FILE + 'quota = 1M\nquota_warn_threshold = 101%', r'\(-1\): Invalid quota_warn_threshold percentage \(101\) for t transport', False),
    (FILE + 'transport_filter = sed s/a/b/', r'\(-24\): transport filter process failed \(127\) while writing to /.*: unable to execute', False),
    (FILE + 'transport_filter = ${bad}', r'\(-1\): Expansion of "\$\{bad\}" from command "\$\{bad\}" in transport filter failed', False),
    (FILE + 'transport_filter = /bin/sleep 20\ntransport_filter_timeout = 1s', r'\(110\): Connection timed out: error while writing to /', False),
    (FILE + 'maildir_format', r'\(-1\): maildir_format requires "directory" to be specified for the t transport', False),
    ('directory = @BOX@/md\nmaildir_format\nquota = 1M\nquota_size_regex = (', r'\(-1\): appendfile: regular expression error: missing closing', False),
    ('directory = @BOX@/md\nmaildir_format\nno_create_directory', r'\(2\): No such file or directory: stat\(\) error for /.*/md: No such', False),
]


@pytest.mark.parametrize('options,text,line', DEFERRED, ids=[str(n) for n in range(len(DEFERRED))])
def test_appendfile_waits(martlet, scratch, options, text, line):
    m = deliver(martlet, scratch, options)
    assert re.search(r'== u0@local\.test R=all T=t defer ' + text, m.log(), re.M), m.log()
    reason = text.split(': ', 1)[1]
    assert bool(re.search(r'^\S+ \S+ \S+ ' + reason, m.log(), re.M)) == line, m.log()


PIPES = [
    ('command = /bin/sh -c "exit 69"', r'\*\* .*returned 69 \(could mean service or program unavailable\) from command: /bin/sh'),
    ('command = /bin/sh -c "exit 73"', r"== .*defer \(0\): .*returned 73 \(could mean can't create output file\) from command"),
    ('command = /bin/sh -c "exit 137"', r'\*\* .*returned 137 \(could mean shell command ended by signal 9 \(Killed\)\) from command'),
    ('command = /nonexist/x\nfreeze_exec_fail', r'== .*defer \(0\): pipe process failed to exec "/nonexist/x"'),
    ('command = /bin/sh -c "exit 127"\nfreeze_exec_fail', r'== .*defer \(0\): pipe process failed to exec "/bin/sh -c "exit 127""'),
    ('command = /bin/sleep 20\ntimeout = 1s', r'\*\* u0@local\.test R=all T=t : pipe delivery process timed out'),
    ('command = /bin/sleep 20\ntimeout = 1s\ntimeout_defer', r'== .*defer \(0\): pipe delivery process timed out'),
    ('command = /bin/echo ${bad}', r'== .*defer \(0\): Expansion of "\$\{bad\}" from command "/bin/echo \$\{bad\}" in t transport failed'),
    ('command = /bin/cat\nenvironment = ${bad}', r'== .*defer \(0\): failed to expand string "\$\{bad\}" for t transport'),
    ('command = /bin/cat\ntransport_filter = /bin/echo $local_part', r"\*\* .*: Tainted arg 1 for transport filter command: 'u0'"),
]


@pytest.mark.parametrize('options,text', PIPES, ids=[str(n) for n in range(len(PIPES))])
def test_pipe_fails(martlet, scratch, options, text):
    m = deliver(martlet, scratch, options, driver='pipe')
    assert re.search(text, m.log(), re.M), m.log()


def test_output_for_a_null_sender_is_discarded(martlet, scratch):
    m = deliver(martlet, scratch, 'command = /bin/echo out\nreturn_output', driver='pipe', sender='<>', allow_panic=None)
    assert re.search(r'=> u0 <u0@local\.test> R=all T=t$', m.log(), re.M) and 'Completed' in m.log(), m.log()


def test_pipe_addresses_in_a_shell(martlet, scratch):
    m = deliver(martlet, scratch, 'command = echo "$pipe_addresses" >@BOX@/o\nuse_shell\nbatch_max = 5', 'u0@local.test', 'u1@local.test',
                driver='pipe', allow_panic=None)
    assert read(f'{scratch}/box/o') == 'u0@local.test u1@local.test\n', m.log()


def test_pipe_addresses_that_a_shell_would_read(martlet, scratch):
    routers = 'all:\n  driver = accept\n  domains = +local_domains\n  transport = t'
    m = deliver(martlet, scratch, 'command = echo $pipe_addresses >@BOX@/o\nuse_shell', 'u0`id`@local.test', driver='pipe', routers=routers)
    assert "Tainted 'u0`id`@local.test' (command for t transport) not permitted" in m.log(), m.log()
    assert not os.path.exists(f'{scratch}/box/o')


def test_pipe_as_creator_has_no_user(martlet, scratch):
    m = deliver(martlet, scratch, 'command = /bin/cat\npipe_as_creator\nuser = nobody', driver='pipe')
    assert 'both pipe_as_creator and an explicit uid/gid are set for the t transport' in m.run('-bV', check=False).stdout


def test_headers_remove_twice(martlet, scratch):
    deliver(martlet, scratch, FILE + 'headers_remove = subject\nheaders_remove = from\nheaders_add = X-A: 1\nheaders_add = X-B: 2', allow_panic=None)
    text = read(f'{scratch}/box/u0')
    assert 'X-A: 1\nX-B: 2\n' in text and 'Subject:' not in text and '\nFrom:' not in text, text


def test_end_of_bsmtp_with_crlf(martlet, scratch):
    deliver(martlet, scratch, FILE + 'use_bsmtp\nuse_crlf\nmessage_suffix = "QUIT\\n"', allow_panic=None)
    text = open(f'{scratch}/box/u0', newline='').read()
    assert text.endswith('body line\r\n..dot\r\nQUIT\r\n.\r\n'), text


def test_batch_of_one_local_part(martlet, scratch):
    routers = ROUTER + '\n  unseen\nagain:\n  driver = redirect\n  local_parts = both\n  data = u0@local.test, U0@local.test, u1@local.test'
    m = deliver(martlet, scratch, FILE + 'batch_max = 10', 'both@local.test', routers=routers.replace('\n  unseen', ''), allow_panic=None)
    log = m.log()
    assert log.count('=> u0 <both@local.test>') == 1 and log.count('-> u0 <both@local.test>') == 1 and log.count('=> u1 ') == 1, log
    assert read(f'{scratch}/box/u0').count('body line') == 1


def test_shadow_that_is_not_there(martlet, scratch):
    m = deliver(martlet, scratch, FILE + 'shadow_transport = none')
    assert 'shadow transport "none" not found' in m.log() and '=> u0 <u0@local.test> R=all T=t' in m.log(), m.log()


def test_a_directory_that_an_address_names(martlet, scratch):
    routers = 'all:\n  driver = redirect\n  domains = +local_domains\n  data = @BOX@/dir/\n  directory_transport = t'
    m = deliver(martlet, scratch, 'mode = 0644', routers=routers, allow_panic=None)
    assert f'=> {scratch}/box/dir/ <u0@local.test> R=all T=t' in m.log(), m.log()
    (name,) = os.listdir(f'{scratch}/box/dir')
    assert read(f'{scratch}/box/dir/{name}').startswith('From a@b.test ')


def test_quota_warning(martlet, scratch):
    options = 'file = @BOX@/$local_part_data\nquota = 10k\nquota_warn_threshold = 10\nquota_warn_message = "To: u1\\nSubject: w\\n\\nfull\\n"'
    m = deliver(martlet, scratch, options, allow_panic=None, main='qualify_recipient = local.test\nerrors_reply_to = er@z.test')
    text = read(f'{scratch}/box/u1')
    assert re.search(r'\nReply-To: er@z\.test\nAuto-Submitted: auto-replied\nFrom: Mail Delivery System <Mailer-Daemon@.*>\nTo: u1@local\.test\n', text), text


REDIRECTS = [
    ('data = ${bad}', r'defer \(-1\): failed to expand "\$\{bad\}"'),
    ('data = /dev/null', r'== /dev/null <u0@local\.test> R=all defer \(-30\): file_transport unset in all router'),
    ('file = @BOX@', r'defer \(-1\): /.* is not a regular file'),
    ('file = @BOX@/nodir/x', r'defer \(-1\): failed to stat /.*/nodir/\. \(No such file or directory\)'),
]


@pytest.mark.parametrize('options,text', REDIRECTS, ids=[str(n) for n in range(len(REDIRECTS))])
def test_redirect_waits(martlet, scratch, options, text):
    routers = 'all:\n  driver = redirect\n  domains = +local_domains\n  ' + options
    m = deliver(martlet, scratch, FILE, routers=routers)
    assert re.search(text, m.log(), re.M), m.log()


ROUTERS = [
    ('driver = accept\n  transport = t\n  errors_to = ${bad}', r'defer \(-1\): all router failed to expand "\$\{bad\}": unknown variable'),
    ('driver = accept\n  transport = t\n  headers_add = ${bad}', r'defer \(-1\): all router failed to expand add_headers item "\$\{bad\}"'),
    ('driver = accept\n  transport = t\n  require_files = ${bad}', r'defer \(-1\): failed to expand "\$\{bad\}" for require_files'),
    ('driver = queryprogram\n  command_user = nobody\n  timeout = 1s\n  command = /bin/sleep 20', r'defer \(-1\): all router: command timed out$'),
    ('driver = queryprogram\n  command_user = nobody\n  command = /nonexist', r'defer \(-1\): all router: command returned non-zero code 127$'),
]


@pytest.mark.parametrize('options,text', ROUTERS, ids=[str(n) for n in range(len(ROUTERS))])
def test_router_waits(martlet, scratch, options, text):
    m = deliver(martlet, scratch, FILE, routers='all:\n  domains = +local_domains\n  ' + options)
    assert re.search(r'== u0@local\.test R=all ' + text, m.log(), re.M), m.log()
