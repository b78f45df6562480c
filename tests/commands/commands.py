"""Commands whose answers are compared with Exim's: files of configurations, each followed by commands and what Exim answered.

    == configuration          main section and the others, as they go into a file; DIR is a directory with `files`, USER an
    qualify_domain = x.test   account for deliveries, SPOOL the spool directory
    == commands
    $ -brw 'a@b.test'         the arguments, quoted as for a shell
    < text                    a line of standard input; "<" alone: an empty one; ⇥ stands for a tab
    > text                    a line of the answer on standard output
    ! text                    and of what went to standard error (time stamps taken off)
    = 1                       the exit status, if it is not 0
    @ TO: a@b                 with `-odq` and the like: sender, recipients and header lines in the spool; files that were written

A line `# martlet: reason` in front of a command: the answer is Martlet's, because Exim's is different on purpose or by version.
"""
import glob
import os
import re
import shlex
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
STAMP = re.compile(r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? ')
ID = re.compile(r'\b[0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4}\b')


# A process that gives up privilege cannot look for leaks.
SANITIZERS = {k: v + (':detect_leaks=0' if k[0] == 'A' else '') for k, v in os.environ.items() if k.endswith('SAN_OPTIONS')}
SANITIZERS.setdefault('ASAN_OPTIONS', 'detect_leaks=0')


class Command:
    def __init__(self, number, words):
        self.number, self.words, self.input, self.answer, self.before, self.own = number, words, [], [], [], False

    def lines(self):
        return self.before + ['$ ' + self.words] + [('< ' + t).rstrip() if not t.endswith(' ') else '< ' + t for t in self.input] + self.answer


class File:
    """One file: name, configuration, commands."""

    def __init__(self, path):
        self.path, self.name = path, os.path.basename(path)[:-4]
        self.head, self.commands, self.tail = [], [], []
        with open(path, encoding='utf-8') as f:
            lines = f.read().split('\n')[:-1]
        at = lines.index('== commands')
        self.head = lines[:at + 1]
        self.configuration = '\n'.join(lines[lines.index('== configuration') + 1:at]) + '\n'
        pending = []
        for number, line in enumerate(lines[at + 1:], at + 2):
            if line.startswith('$ '):
                c = Command(number, line[2:])
                c.before, pending = pending, []
                c.own = any(b.startswith('# martlet:') for b in c.before)
                self.commands.append(c)
            elif line[:1] == '<':
                self.commands[-1].input.append(line[2:])
            elif line[:1] in ('>', '!', '=', '@'):
                self.commands[-1].answer.append(line)
            else:
                pending.append(line)
        self.tail = pending

    def write(self):
        text = self.head + [line for c in self.commands for line in c.lines()] + self.tail
        with open(self.path, 'w', encoding='utf-8') as f:
            f.write('\n'.join(text) + '\n')


def all_files():
    return [File(p) for p in sorted(glob.glob(os.path.join(HERE, '*.txt')))]


def clean(text, place):
    for name, path in place.items():
        text = text.replace(path, name)
    text = re.sub(r'\((Exim|Martlet) [0-9][^)\n]*\)', '(VERSION)', text)
    text = re.sub(r'(ESMTP|SMTP) (Exim|Martlet) .*', r'\1 BANNER', text)
    text = re.sub(r'\b\d?\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d [+-]\d{4}', 'DATE', text)
    text = re.sub(r'\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), DATE', 'DATE', text)
    return re.sub(r'\bE?MSGID(@|$)', r'MSGID\1', ID.sub('MSGID', text))


def spool_lines(spool):
    """Sender, recipients and header lines of what waits."""
    for path in sorted(glob.glob(os.path.join(spool, 'input', '**', '*-H'), recursive=True)):
        with open(path, encoding='utf-8', errors='surrogateescape') as f:
            envelope, _, header = f.read().partition('\n\n')
        lines = envelope.split('\n')
        count = max(n for n, line in enumerate(lines) if re.fullmatch(r'\d+', line))
        yield 'FROM: ' + lines[2]
        for line in lines[count + 1:]:
            yield 'TO: ' + line
        at = 0
        while m := re.compile(r'(\d{3,})(.) ').match(header, at):
            text = header.encode('utf-8', 'surrogateescape')[len(header[:m.end()].encode('utf-8', 'surrogateescape')):][:int(m.group(1))]
            text = text.decode('utf-8', 'surrogateescape')
            for n, line in enumerate(text.rstrip('\n').split('\n')):
                yield (m.group(2).replace(' ', '.') if n == 0 else ' ') + ' ' + line
            at = m.end() + len(text)


class Place:
    """A directory in which one program answers the commands of one file."""

    def __init__(self, directory, program, user, group, extra=''):
        self.program, self.user, self.group, self.extra = program, user, group, extra
        self.directory = directory
        self.spool = os.path.join(directory, 'spool')
        self.files = os.path.join(directory, 'files')
        self.conf = os.path.join(directory, 'conf')
        os.makedirs(self.spool)
        shutil.copytree(os.path.join(HERE, 'files'), self.files)
        self.out = os.path.join(directory, 'out')
        os.makedirs(self.out)
        if os.geteuid() == 0:
            shutil.chown(self.spool, user, group)
            os.chmod(self.out, 0o777)

    def configure(self, text):
        who = f'exim_user = {self.user}\nexim_group = {self.group}\n' if self.user else ''
        deliver = f'user = {self.user}' if self.user else ''
        text = text.replace('DELIVERED_AS', deliver).replace('DIR', self.files).replace('OUT', self.out)
        with open(self.conf, 'w', encoding='utf-8') as f:
            f.write(f'spool_directory = {self.spool}\nlog_file_path = {self.spool}/%slog\nkeep_environment =\nexim_path = {self.program}\n{who}{self.extra}{text}')
        os.chmod(self.conf, 0o644)

    def run(self, command):
        """The lines of the answer."""
        for sub in ('input', 'msglog'):
            shutil.rmtree(os.path.join(self.spool, sub), ignore_errors=True)
        for path in glob.glob(os.path.join(self.out, '*')):
            os.unlink(path)
        words = [w.replace('DIR', self.files) for w in shlex.split(command.words)]
        text = ''.join(line + '\n' for line in command.input).replace('⇥', '\t')
        done = subprocess.run([self.program, '-C', self.conf, *words], input=text.encode('utf-8', 'surrogateescape'), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60,
                              env={'PATH': '/usr/bin:/bin', 'TZ': 'UTC0', 'LANG': 'C', **SANITIZERS})
        place = {'DIR': self.files, 'SPOOL': self.spool, 'OUT': self.out, 'CONF': self.conf}
        answer = []
        for mark, raw in (('>', done.stdout), ('!', done.stderr)):
            for line in clean(raw.decode('utf-8', 'surrogateescape'), place).split('\n'):
                line = line.rstrip('\r')
                if mark == '!':
                    line = STAMP.sub('', line)
                if line == 'exim user lost privilege for using -C option': # its delivery runs as another user
                    continue
                answer.append((mark + ' ' + line) if line else mark)
            while answer and answer[-1] == mark:
                answer.pop()
        if done.returncode:
            answer.append(f'= {done.returncode}')
        answer += ['@ ' + clean(line, place) for line in spool_lines(self.spool)]
        for path in sorted(glob.glob(os.path.join(self.out, '*'))):
            with open(path, encoding='utf-8', errors='surrogateescape') as f:
                answer += [f'@ {os.path.basename(path)}: {clean(line, place)}' for line in f.read().rstrip('\n').split('\n')]
        return [line.rstrip().replace('\t', '⇥') for line in answer]
