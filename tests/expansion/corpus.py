"""The corpus of expansions: files of expressions, each with the result that Debian's Exim gives.

A file has comments (`#` first), and expressions, each followed by its result, indented:

    ${lc:ABC}
        = abc

A result is one line, whatever is in it: a backslash is doubled, newlines and bytes that are no printable UTF-8 are
escapes, and so is white space at the end. A failed expansion is shown as -be shows it, "Failed: " and the text.
"""
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = os.path.join(HERE, 'corpus')
RESULT = '    ='


class Entry:
    def __init__(self, expression, result=None, comment=()):
        self.expression, self.result, self.comment = expression, result, list(comment)


def escape(raw):
    """bytes of a result -> one line of text"""
    out = []
    for ch in raw.decode('utf-8', 'surrogateescape'):
        if ch == '\\':
            out.append('\\\\')
        elif ch == '\n':
            out.append('\\n')
        elif ch == '\t':
            out.append('\\t')
        elif ch == ' ' or ch.isprintable():
            out.append(ch)
        else:
            out.extend(f'\\x{b:02x}' for b in ch.encode('utf-8', 'surrogateescape'))
    text = ''.join(out)
    return text[:-1] + '\\x20' if text.endswith(' ') else text


def read(path):
    entries, comment = [], []
    with open(path, encoding='utf-8') as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip('\n')
            if line.startswith('    ='):
                if not entries or entries[-1].result is not None or comment:
                    raise ValueError(f'{path}:{number}: a result without its expression')
                entries[-1].result = line[len(RESULT):].removeprefix(' ')
            elif not line or line.startswith('#'):
                comment.append(line)
            else:
                entries.append(Entry(line, None, comment))
                comment = []
    return entries, comment


def write(path, entries, tail=()):
    with open(path, 'w', encoding='utf-8') as f:
        for e in entries:
            for line in e.comment:
                f.write(line + '\n')
            f.write(e.expression + '\n')
            if e.result is not None:
                f.write((RESULT + ' ' + e.result).rstrip() + '\n')
        for line in tail:
            f.write(line + '\n')


def names():
    """The corpus files, without `.txt`, sorted."""
    return sorted(n[:-4] for n in os.listdir(FILES) if n.endswith('.txt'))


def path_of(name):
    return os.path.join(FILES, name + '.txt')


def differences():
    """Where Martlet is to give another result than the recorded one: expression -> Entry, from differences-*.txt."""
    found = {}
    for name in sorted(os.listdir(HERE)):
        if re.fullmatch(r'differences-\w+\.txt', name):
            for e in read(os.path.join(HERE, name))[0]:
                if e.expression in found:
                    raise ValueError(f'{name}: twice: {e.expression}')
                e.file = name
                found[e.expression] = e
    return found
