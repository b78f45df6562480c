"""The examples of docs/*.md do what is written there.

Fenced blocks of these kinds are run, in the order of the chapter, in a directory of the chapter's own:

  ```expand           lines for `martlet -be` behind `> `, each followed by what is printed: its value, or `Failed: …`.
                      `\\` at the end of a line continues it. `…` in a result line stands for any text.
  ```config           the configuration that holds from here to the next such block; it is checked with -bV
  ```file NAME        the contents of a file; NAME, as the chapter writes it, means that file from here on (and so does its
                      directory, if it is at least /one/two: commands can make more files there)
  ```message          the message that the expansions behind it see (-bem); an empty block takes it away
  ```console          commands behind `$ `, each followed by what is printed; `martlet` has the configuration

All other blocks (```text, ```sh, no word) are for the reader alone.
"""
import glob
import os
import re
import subprocess

import pytest

from support.martlet import TOP, binary

pytestmark = pytest.mark.plain

ALWAYS = 'primary_hostname = mx.example.org\nqualify_domain = example.org\nkeep_environment = PATH\ntimezone = UTC\n'
RUN = ('expand', 'config', 'file', 'message', 'console')
CHAPTERS = sorted(glob.glob(os.path.join(TOP, 'docs', '**', '*.md'), recursive=True))


def blocks(text):
    """(line number, word, rest of the info string, text) of each fenced block."""
    found, fence, start, info, body = [], None, 0, '', []
    for number, line in enumerate(text.split('\n'), 1):
        mark = re.match(r'(`{3,}|~{3,})(.*)$', line)
        if fence is None and mark:
            fence, start, info, body = mark[1], number, mark[2].strip(), []
        elif fence is not None and mark and mark[1].startswith(fence) and not mark[2].strip():
            word, _, rest = info.partition(' ')
            found.append((start, word, rest.strip(), ''.join(b + '\n' for b in body)))
            fence = None
        elif fence is not None:
            body.append(line)
    assert fence is None, f'line {start}: a block that does not end'
    return found


def dialogue(text, mark):
    """[(what is typed, what is printed)] of a block whose lines are typed behind `mark`."""
    pairs, more = [], False
    for line in text.split('\n')[:-1]:
        if more:
            pairs[-1][0] += line + '\n'
        elif line.startswith(mark):
            pairs.append([line[len(mark):] + '\n', ''])
        else:
            assert pairs, f'{line!r}: the first line must begin with {mark!r}'
            pairs[-1][1] += line + '\n'
        more = (more or line.startswith(mark)) and line.endswith('\\')
    return pairs


def pattern(text):
    return '.*?'.join(map(re.escape, text.split('…')))


class Chapter:
    def __init__(self, directory):
        self.directory, self.names, self.message = str(directory), {}, None
        self.wrong = []
        os.chmod(self.directory, 0o755)
        self.conf = self.write('conf', ALWAYS)
        tools = os.path.join(self.directory, 'bin')
        os.mkdir(tools)
        self.write('bin/martlet', f'#!/bin/sh\nexec {binary()} -C {self.conf} "$@"\n', 0o755)
        self.environment = dict(os.environ, PATH=f'{tools}:{os.environ["PATH"]}', NO_COLOR='1', LC_ALL='C.UTF-8')

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def here(self, text):
        """Names as the chapter writes them -> those of this run."""
        longest_first = '|'.join(re.escape(n) for n in sorted(self.names, key=len, reverse=True))
        return re.sub(longest_first, lambda m: self.names[m[0]], text) if self.names else text

    def there(self, text):
        for name, path in self.names.items():
            text = text.replace(path, name)
        return text

    def run(self, command, text=''):
        done = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                              cwd=self.directory, env=self.environment)
        return done.returncode, self.there(done.stdout.decode('utf-8', 'replace'))

    def block(self, line, word, rest, text):
        if word == 'file':
            assert rest, f'line {line}: a file without a name'
            # Everything in its directory is ours, too, so that what commands make there is found (but not in /etc itself).
            for name in {rest, os.path.dirname(rest) if rest.count('/') > 2 else rest}:
                self.names[name] = os.path.join(self.directory, 'files', name.lstrip('/'))
            self.write(os.path.join('files', rest.lstrip('/')), self.here(text))
        elif word == 'config':
            self.write('conf', ALWAYS + self.here(text))
            status, out = self.run([binary(), '-C', self.conf, '-bV'])
            if status != 0 or 'Configuration file' not in out:
                self.wrong.append(f'line {line}: the configuration is refused: {out}')
        elif word == 'message':
            self.message = self.write('message', text) if text else None
        elif word == 'expand':
            self.expand(line, dialogue(text, '> '))
        elif word == 'console':
            for command, expected in dialogue(text, '$ '):
                _, out = self.run(['/bin/sh', '-c', self.here(command)])
                self.compare(line, command, expected, out)

    def expand(self, line, pairs):
        mode = ['-bem', self.message] if self.message else ['-be']
        typed = ''.join(t for t, _ in pairs)
        _, out = self.run([binary(), '-C', self.conf, *mode], self.here(typed))
        # One prompt a line.
        expected = ''.join('> ' + e for _, e in pairs) + '> \n'
        self.compare(line, typed, expected, out)

    def compare(self, line, typed, expected, out):
        if not re.fullmatch(pattern(expected), out, re.S):
            self.wrong.append(f'line {line}: {typed}--- the chapter says\n{expected}--- it is\n{out}')


@pytest.mark.parametrize('path', CHAPTERS, ids=lambda p: os.path.relpath(p, os.path.join(TOP, 'docs')))
def test_examples(path, tmp_path):
    with open(path, encoding='utf-8') as f:
        found = [b for b in blocks(f.read()) if b[1] in RUN]
    chapter = Chapter(tmp_path)
    for b in found:
        chapter.block(*b)
    assert not chapter.wrong, '\n'.join(chapter.wrong)


def test_wrong_examples_are_seen(tmp_path):
    chapter = Chapter(tmp_path)
    text = ('```expand\n> ${uc:a}\nA\n> ${uc:b\\\n  c}\nB\n```\n```file /etc/x/list\na: 1\n```\n'
            '```expand\n> ${lookup{a}lsearch{/etc/x/list}}\n2\n```\n```config\nno_such_option = 1\n```\n'
            '```console\n$ cat /etc/x/list\na: 2\n```\n')
    for b in blocks(text):
        chapter.block(*b)
    assert [re.match(r'line (\d+)', w)[1] for w in chapter.wrong] == ['1', '11', '15', '18']
    good = ('```expand\n> ${uc:a}\nA\n> ${uc:b\\\n  c}\nBC\n> X = y\nDefined macro \'X\'\n> ${uc:X}\nY\n> \n\n```\n'
            '```message\nSubject: hello\n\nbody\n```\n```expand\n> $h_subject:\nhello\n> ${map{a:b}}\nFailed: …\n```\n'
            '```console\n$ cat /etc/x/list\na: 1\n$ martlet -be \'$primary_hostname\'\nmx.example.org\n```\n')
    (tmp_path / 'good').mkdir()
    chapter = Chapter(tmp_path / 'good')
    for b in blocks('```file /etc/x/list\na: 1\n```\n' + good):
        chapter.block(*b)
    assert not chapter.wrong, '\n'.join(chapter.wrong)
