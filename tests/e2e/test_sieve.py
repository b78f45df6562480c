"""Sieve scripts of users: tested with -bf, and with mail that is delivered."""
import getpass
import json
import os
import re
import shutil
import subprocess
import time

import pytest

from support.martlet import binary
from support.smtp import Client
from support.util import maildir, read, wait_for, write

HERE = os.path.dirname(os.path.abspath(__file__))

CONF = '''primary_hostname = host.example
qualify_domain = test.ex
spool_directory = {0}/spool
keep_environment =
'''
FIRST = '# Sieve filter\n'


# --- -bf ---

def try_script(tmp_path, text, *options, message='Subject: x\n\nx\n'):
    conf = write(str(tmp_path / 'conf'), CONF.format(tmp_path))
    tmp_path.chmod(0o755)
    name = write(str(tmp_path / 'filter'), text.encode())
    done = subprocess.run([binary(), '-C', conf, '-bf', name, '-bfl', 'fred', *options], input=message.encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    return done.stdout.decode('utf-8', 'replace').replace(name, 'FILE'), done.returncode, done.stderr.decode('utf-8', 'replace')


PARTS = 6


@pytest.mark.plain
@pytest.mark.parametrize('part', range(PARTS))
def test_recorded(tmp_path, part):
    """Every recorded run of Debian's Exim 4.96 (tests/support/record_sieve.py): script, options and message in; output and status out."""
    with open(os.path.join(HERE, 'sieve_recorded.json'), encoding='utf-8') as f:
        cases = json.load(f)
    wrong = []
    assert len(cases) > 400
    for case in cases[part::PARTS]:
        out, status, err = try_script(tmp_path, case['filter'], *case['options'], message=case['message'])
        out = out.replace(getpass.getuser() + '@test.ex', 'CALLER@test.ex')
        if (out, status) != (case['output'], case['status']):
            wrong.append(f'{case["filter"]!r} {case["options"]}\n--- Exim\n{case["output"]}\n--- ours ({status})\n{out}\n{err}')
    assert not wrong, f'{len(wrong)} of {len(cases)}:\n' + '\n'.join(wrong[:5])


@pytest.mark.plain
def test_what_is_shown_with_v(tmp_path):
    out, status, err = try_script(tmp_path, FIRST + 'require ["fileinto","copy"];\nif header "subject" "x" {\n  fileinto :copy "a";\n'
                              '  redirect "a@b.c";\n}\nif size :over 1M { discard; }\n', '-v')
    assert (status, out.split('\n\n')[1]) == (0, 'No implicit keep\n')
    assert err == 'Condition in line 3 is true\nFile a copy into: a\nRedirect to: a@b.c\nCondition in line 7 is false\n'


@pytest.mark.plain
def test_extensions_are_listed(tmp_path):
    done = subprocess.run([binary(), '-C', write(str(tmp_path / 'conf'), CONF.format(tmp_path)), '-bI:sieve'], stdout=subprocess.PIPE, timeout=60)
    assert done.stdout.decode().split() == ['comparator-i;ascii-numeric', 'copy', 'encoded-character', 'enotify', 'envelope', 'fileinto',
                                            'subaddress', 'vacation']


@pytest.mark.plain
def test_examples_of_the_documentation(tmp_path):
    """docs/filters.md: every script there runs without an error."""
    found = re.findall(r'^```sieve\n(.*?)^```$', read(os.path.join(HERE, '..', '..', 'docs', 'filters.md')), re.M | re.S)
    assert found
    for one in found:
        out, status, err = try_script(tmp_path, one, '-f', 'a@b.test')
        assert status == 0 and out.endswith('mplicit keep\n'), (one, out, err)


SCRIPTS = [
    'require ["fileinto", "copy"]; if header :contains ["From", "Sender"] "boss" { fileinto :copy "Work/Boss"; redirect "me@example.org"; stop; }',
    'require "envelope"; if allof (envelope :domain :is "from" "example.org", not exists ["X-A", "X-B"]) { discard; } else { keep; }',
    'require ["vacation"]; if anyof (size :over 100K, address :matches :localpart "to" "*-list") { keep; } elsif header "a" "b" '
    '{ vacation :days 7 :subject "s" :addresses ["a@b.c", "d@e.f"] :handle "h" "I am away"; }',
    'require ["comparator-i;ascii-numeric", "encoded-character"]; if header :comparator "i;ascii-numeric" :is "X-N" "5" { keep; }',
    'require ["subaddress", "fileinto"]; if address :detail "to" "x" { fileinto "x"; } if address :user "to" "y" { stop; }',
]


@pytest.mark.plain
@pytest.mark.skipif(not shutil.which('sievec'), reason='sievec of Pigeonhole is not installed')
@pytest.mark.parametrize('script', SCRIPTS)
def test_as_another_implementation_sees_it(tmp_path, script):
    """Pigeonhole's sievec and we agree on what is an error, when any one word is left out of a script or is there twice."""
    conf = write(str(tmp_path / 'dovecot.conf'), 'ssl = no\n')
    words = re.findall(r'"[^"]*"|[:\w]+|[^\s\w]', script)
    # Tags that are there twice are no error in Exim.
    variants = [words] + [words[:i] + words[i + 1:] for i in range(len(words))]
    variants += [words[:i] + [word] + words[i:] for i, word in enumerate(words) if word[0] != ':']
    wrong = []
    for variant in variants:
        text = FIRST + ' '.join(variant) + '\n'
        out, status, err = try_script(tmp_path, text)
        done = subprocess.run(['sievec', '-c', conf, write(str(tmp_path / 'x.sieve'), text), str(tmp_path / 'x.svbin')], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        assert status == 0, err
        if ('Sieve error' in out) != (done.returncode != 0):
            wrong.append(f'{text}--- ours\n{out}--- sievec\n{done.stdout.decode()}')
    assert not wrong, f'{len(wrong)} of {len(variants)}:\n' + '\n'.join(wrong)


# --- deliveries ---

ROUTERS = '''
sieve:
  driver = redirect
  domains = +local_domains
  check_local_user
  local_part_suffix = -*
  local_part_suffix_optional
  file = $home/.sieve
  allow_filter
  no_verify
  sieve_useraddress = $local_part
  sieve_subaddress = ${sg{$local_part_suffix}{^-}{}}
  {options}
  file_transport = folder
  reply_transport = answer
home_users:
  driver = accept
  domains = +local_domains
  check_local_user
  local_part_suffix = -*
  local_part_suffix_optional
  transport = home
'''
VACATION = 'sieve_vacation_directory = $home/vacation\n  sieve_enotify_mailto_owner = postmaster@local.test'
TRANSPORTS = '''
folder:
  driver = appendfile
  file = $home/${if eq{$address_file}{inbox}{mbox}{mail/$address_file}}
  create_file = belowhome
answer:
  driver = autoreply
home:
  driver = appendfile
  directory = $home/Maildir
  maildir_format
  create_directory
'''
MAILDIRS = TRANSPORTS.replace('  file = $home/${if eq{$address_file}{inbox}{mbox}{mail/$address_file}}\n  create_file = belowhome\n',
                              '  directory = $home/Maildir/${if eq{$address_file}{inbox}{}{.$address_file}}\n  maildir_format\n'
                              '  create_directory\n  create_file = belowhome\n')


@pytest.fixture
def system(martlet):
    def start(options=VACATION, transports=TRANSPORTS, **kw):
        kw.setdefault('acl_rcpt', '  accept domains = +local_domains\n')
        return martlet(privileged=True, transports=transports, arguments=[], routers=ROUTERS.replace('{options}', options), **kw)
    return start


def home(m, user, name=''):
    return m.place.path(os.path.join('/home', user, name))


def script(m, user, text):
    path = write(home(m, user, '.sieve'), (FIRST + text).encode())
    os.chown(path, m.place.uid(user), m.place.uid(user))
    os.chmod(path, 0o600)


def send(m, *recipients, data='Subject: x\r\n\r\nx\r\n', sender='a@b.test'):
    with Client(m.port) as c:
        got = c.mail(sender, *recipients, data=data)
        assert got[0] == 250, (got, m.logs())


def mails(m, user, folder='Maildir'):
    return [x if isinstance(x, str) else x.decode() for x in maildir(home(m, user, folder))]


SORTING = '''require ["fileinto", "copy", "envelope", "subaddress"];
if header :contains "subject" "spam" { discard; }
elsif header :contains "subject" "list" { fileinto "lists"; }
elsif header :contains "subject" "other" { redirect "u2@local.test"; }
elsif header :contains "subject" "copy" { redirect :copy "u2@local.test"; fileinto :copy "copies"; }
elsif envelope :detail "to" "ext" { fileinto "details"; }
'''


@pytest.mark.root
def test_mbox_folders(system):
    m = system()
    os.mkdir(home(m, 'u1', 'mail'))
    os.chown(home(m, 'u1', 'mail'), m.place.uid('u1'), m.place.uid('u1'))
    script(m, 'u1', SORTING)
    for subject in ('spam', 'list', 'other', 'copy', 'plain'):
        send(m, 'u1@local.test', data=f'Subject: {subject}\r\n\r\nx\r\n')
    send(m, 'u1-ext@local.test', data='Subject: detail\r\n\r\nx\r\n')
    m.wait_log('Completed', count=6)
    got = {name: re.findall(r'^Subject: (.*)$', read(home(m, 'u1', name)), re.M) for name in ('mbox', 'mail/lists', 'mail/copies', 'mail/details')}
    assert {k: sorted(v) for k, v in got.items()} == {'mbox': ['copy', 'plain'], 'mail/lists': ['list'], 'mail/copies': ['copy'],
                                                      'mail/details': ['detail']}
    assert sorted(re.search('^Subject: (.*)$', x, re.M)[1] for x in mails(m, 'u2')) == ['copy', 'other']
    assert os.stat(home(m, 'u1', 'mail/lists')).st_uid == m.place.uid('u1')
    m.wait_log(r'=> /home/u1/mail/lists <u1@local\.test> R=sieve T=folder$')
    m.wait_log(r'=> /home/u1/mail/details <u1-ext@local\.test> R=sieve T=folder$')
    m.wait_log(r'=> /home/u1/mbox <u1@local\.test> R=sieve T=folder$', count=2)
    m.wait_log(r'=> discarded <u1@local\.test> R=sieve$')
    m.wait_log(r'=> u2 <u1@local\.test> R=home_users T=home$', count=2)


@pytest.mark.root
def test_maildir_folders(system):
    m = system(transports=MAILDIRS)
    script(m, 'u1', SORTING)
    for subject in ('list', 'plain'):
        send(m, 'u1@local.test', data=f'Subject: {subject}\r\n\r\nx\r\n')
    m.wait_log('Completed', count=2)
    assert ['Subject: list\n' in x for x in mails(m, 'u1', 'Maildir/.lists')] == [True]
    assert ['Subject: plain\n' in x for x in mails(m, 'u1')] == [True]


@pytest.mark.root
def test_errors_keep_the_message(system):
    m = system()
    script(m, 'u1', 'redirect "u2@local.test";\nnonsense;\n')
    script(m, 'u3', 'require "fileinto"; fileinto "../../u2/x"; discard;')
    send(m, 'u1@local.test', 'u3@local.test')
    m.wait_log('Completed')
    for user in ('u1', 'u3'):
        assert read(home(m, user, 'mbox')).count('Subject: x\n') == 1
    assert len(mails(m, 'u2')) == 1


@pytest.mark.root
def test_vacation(system):
    m = system()
    script(m, 'u1', 'require "vacation"; vacation :days 2 :subject "Away: ü" :from "U One <u1@local.test>" "Grüße\nfrom far away";')
    asked = 'From: u4@local.test\r\nTo: u1@local.test\r\nMessage-ID: <1@x>\r\n{}\r\nx\r\n'
    send(m, 'u1@local.test', sender='u4@local.test', data=asked.format(''))
    wait_for(lambda: mails(m, 'u4'), m.logs)
    # Once is enough; machines and those who wrote to others get none.
    send(m, 'u1@local.test', sender='u4@local.test', data=asked.format(''))
    for line in ('List-Id: <x>\r\n', 'Precedence: bulk\r\n', 'Auto-Submitted: auto-replied\r\n'):
        send(m, 'u1@local.test', sender='u5@local.test', data=asked.format(line))
    send(m, 'u1@local.test', sender='', data=asked.format(''))
    send(m, 'u1@local.test', sender='u5@local.test', data=asked.format('').replace('To: u1', 'To: u7'))
    m.wait_log(' Completed$', count=8)
    assert len(re.findall(' <= ', m.log())) == 8 and read(home(m, 'u1', 'mbox')).count('Message-ID: <1@x>') == 7, m.logs()
    assert not mails(m, 'u5')
    answers = mails(m, 'u4')
    assert len(answers) == 1
    head, body = answers[0].split('\n\n', 1)
    assert body == 'Gr=C3=BC=C3=9Fe\nfrom far away\n'
    for line in ('From: U One <u1@local.test>', 'To: u4@local.test', 'Subject: =?utf-8?Q?Away=3A_=C3=BC?=', 'In-Reply-To: <1@x>', 'References: <1@x>',
                 'Auto-Submitted: auto-replied', 'Content-Transfer-Encoding: quoted-printable'):
        assert line in head.split('\n'), head
    m.wait_log(r'=> >u4@local\.test <u1@local\.test> R=sieve T=answer$')
    # Another text is another answer.
    script(m, 'u1', 'require "vacation"; vacation "still away";')
    send(m, 'u1@local.test', sender='u4@local.test', data=asked.format('Subject: Hi\r\n'))
    wait_for(lambda: len(mails(m, 'u4')) == 2, m.logs)
    assert any('Subject: =?utf-8?Q?Auto=3A_Hi?=\n' in x and x.endswith('\nstill away\n') for x in mails(m, 'u4'))


@pytest.mark.root
def test_answers_that_count_no_more_are_forgotten(system):
    """Files of 31 days and older, as with Exim 4.96; nothing else that lies there."""
    m = system()
    os.makedirs(home(m, 'u1', 'vacation/' + 'D' * 32))
    ages = {'A' * 32: 32, '0123456789ABCDEF' * 2: 400, 'B' * 32: 30, 'C' * 31: 400, 'C' * 33: 400, 'c' * 32: 400, 'notes': 400, 'D' * 32: 400}
    for name, days in ages.items():
        path = home(m, 'u1', f'vacation/{name}')
        if name[0] != 'D':
            write(path, 'x')
        os.utime(path, (time.time() - days * 86400,) * 2)
    for path, _, files in os.walk(home(m, 'u1', 'vacation')):
        for p in (path, *(f'{path}/{f}' for f in files)):
            os.chown(p, m.place.uid('u1'), m.place.uid('u1'))
    script(m, 'u1', 'require "vacation"; vacation "I am away";')
    send(m, 'u1@local.test', sender='u4@local.test', data='From: u4@local.test\r\nTo: u1@local.test\r\n\r\nx\r\n')
    wait_for(lambda: mails(m, 'u4'), m.logs)
    m.wait_empty()
    left = set(os.listdir(home(m, 'u1', 'vacation')))
    assert set(ages) - left == {'A' * 32, '0123456789ABCDEF' * 2}, left
    assert len(left - set(ages)) == 1  # whom it was said to now


@pytest.mark.root
def test_notify(system):
    """A notification is sent once, however often the message is routed; not about notifications."""
    m = system()
    script(m, 'u1', 'require ["enotify", "fileinto"]; notify :importance "1" "mailto:u4@local.test?body=Look%21"; redirect "u6@local.test";')
    os.makedirs(home(m, 'u6', 'Maildir'))
    os.chmod(home(m, 'u6', 'Maildir'), 0o500)  # nobody's: the message waits, and is routed again
    send(m, 'u1@local.test', data='Subject: =?utf-8?Q?K=C3=A4se?=\r\n\r\nx\r\n')
    m.wait_log(r'== u6@local\.test <u1@local\.test> R=home_users T=home defer')
    m.wait_rest()
    m.run('-qff')
    m.wait_log(r'== u6@local\.test <u1@local\.test> R=home_users T=home defer', count=2)
    m.wait_rest()
    shutil.rmtree(home(m, 'u6', 'Maildir'))
    m.run('-qff')
    wait_for(lambda: mails(m, 'u6'), m.logs)
    send(m, 'u1@local.test', data='Subject: y\r\nAuto-Submitted: auto-notified\r\n\r\nx\r\n')
    m.wait_log(' Completed$', count=3)
    assert len(re.findall(' <= ', m.log())) == 3 and len(mails(m, 'u6')) == 2, m.logs()
    told = mails(m, 'u4')
    assert len(told) == 1
    for line in ('From: u1@local.test', 'To: u4@local.test', 'Auto-Submitted: auto-notified; owner-email="postmaster@local.test"', 'Importance: High',
                 'Subject: =?utf-8?Q?K=C3=A4se?='):
        assert line in told[0].split('\n'), told[0]
    assert told[0].endswith('\n\nLook!\n')
    m.wait_log(r'<= u1@local\.test R=\S+ U=u1 P=local')


@pytest.mark.root
def test_what_a_router_forbids(system):
    m = system(options='forbid_file\n  forbid_filter_reply\n  sieve_vacation_directory = /v')
    script(m, 'u1', 'require "fileinto"; fileinto "x";')
    script(m, 'u2', 'require "vacation"; vacation "x"; discard;')
    script(m, 'u3', 'require "enotify"; discard;')
    for user in ('u1', 'u2', 'u3'):
        send(m, user + '@local.test', sender='u9@local.test', data=f'From: u9@local.test\r\nTo: {user}@local.test\r\n\r\nx\r\n')
    m.wait_log(r'\*\* save x <u1@local\.test> R=sieve T=folder : delivery to file forbidden')
    m.wait_log(r'\*\* >u9@local\.test <u2@local\.test> R=sieve T=answer : delivery to autoreply forbidden')
    m.wait_log(r'\*\* save inbox <u3@local\.test> R=sieve T=folder : delivery to file forbidden')


@pytest.mark.root
def test_forbidden_altogether(system):
    m = system(options='forbid_sieve_filter')
    script(m, 'u1', 'discard;')
    send(m, 'u1@local.test')
    m.wait_log(r'== u1@local\.test R=sieve defer \(-17\): error in filter file: Sieve filtering not enabled')
