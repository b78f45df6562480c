"""Writes the generated files of the corpus: items, operators and conditions with many arguments, nested, and broken.

The same lines each time: from tables, and from a generator of numbers of our own with fixed seeds. Results are put in by
`differential --record`; lines that were there before keep theirs.
"""
import re

import corpus


class Dice:
    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & (2 ** 64 - 1)
        return (self.state >> 33) % n

    def pick(self, values):
        return values[self.below(len(values))]


STRINGS = [
    '', ' ', 'a', 'abc', 'ABC', 'Mixed Case Text', 'two  spaces', ' around ', 'a:b:c', 'a, b , c', 'x=1 y="2 3"', '1', '0', '-1', '007',
    '12345', '0x1f', '10K', '3.14', 'user@domain.test', 'User Name <user@Domain.Test>', '"quoted local"@domain.test', '<>',
    'a@b, c@d (e)', '192.0.2.1', '192.0.2.0/24', '2001:db8::1', '2001:db8::/32', '::1', 'naïve', '€uro', '日本', '\\xff\\xfe', 'a\\nb', '\\t',
    'a\\\\b', 'a"b', "a'b", '\\$x', '\\{x\\}', 'a/b/c', '/no/such/file', 'example.test', 'xn--bcher-kva.test', 'bücher.test',
    '=?utf-8?Q?caf=C3=A9?=', '=?iso-8859-1?B?Y2Fm6Q==?=', 'Y2Fmw6k=', '616263', '1w2d', '3661', '<, a,b', '<; a;b', 'true', 'local_domains',
    'The quick brown fox jumps over the lazy dog', '!#%&*+-=?^_`|~', '[1, "two", \\{"three": 3\\}]', '\\{"k": "v", "n": 1\\}',
]

OPERATORS = '''address addresses base32 base32d base62 base62d base64 base64d domain escape escape8bit eval eval10 expand from_utf8
hash_4 hash_5_62 hex2b64 hexquote ipv6denorm ipv6norm lc length_3 listcount listnamed local_part mask mask_n md5 nhash_97 nhash_8_64
quote quote_local_part quote_lsearch quote_ldap quote_ldap_dn quote_mysql quote_pgsql quote_sqlite reverse_ip rfc2047 rfc2047d rxquote
sha1 sha256 sha2_384 sha2_512 sha3 sha3_224 str2b64 strlen substr_1 substr_-2 substr_1_2 substr_-3_2 time_eval time_interval uc utf8clean
utf8_domain_to_alabel utf8_domain_from_alabel utf8_localpart_to_alabel utf8_localpart_from_alabel'''.split()

# What these make of a string is shown with a few values only: they differ in nothing but the digits.
FEW = {'md5', 'sha1', 'sha256', 'sha2_384', 'sha2_512', 'sha3', 'sha3_224', 'str2b64', 'quote_lsearch', 'hex2b64'}


def operators():
    for op in OPERATORS:
        for n, s in enumerate(STRINGS):
            if op not in FEW or n % 6 == 3:
                yield '${%s:%s}' % (op, s)


NUMBERS = ['0', '1', '-1', '2', '3', '-2', '10', '99', '', 'x', '1K', ' 2', '2 ', '0x2']


def numeric_items():
    for n in NUMBERS:
        for item in ('length{%s}{abcdef}', 'substr{%s}{abcdef}', 'substr{%s}{2}{abcdef}', 'substr{-3}{%s}{abcdef}', 'substr{1}{%s}{}',
                     'hash{%s}{abcdefghij}', 'nhash{%s}{abcdefghij}', 'nhash{10}{%s}{abcdefghij}', 'hash{3}{%s}{abcdefghij}',
                     'extract{%s}{:}{a:b:c}{<$value>}{none}', 'extract{%s}{ ,}{a,b c,,d}{<$value>}{none}',
                     'extract json{%s}{["a","b"]}{<$value>}{none}', 'listextract{%s}{a:b:c}{<$value>}{none}',
                     'listextract{%s}{<, a,,c}{<$value>}{none}'):
            if item.startswith(('hash', 'nhash')) and ('-' in n or n in ('', '0')):
                continue        # Debian's Exim reads what it should not, or divides by zero
            yield '${%s}' % (item % n)


LISTS = ['', 'a', 'a:b', 'b:a:c', ' a : b ', 'a::b:c', ':a', 'a:', 'a: :b', '<, a,b,c', '<; x;y:z', '<\\n p\\nq', '1:22:3', '3:2:1', '<|1|-2|10',
         'A:b:C', 'host.test:other.test', '192.0.2.1:10.0.0.1', '<, a, ,b', 'a b:c d']


def list_items():
    for text in LISTS:
        for item in ('${filter{%s}{!eq{$item}{a}}}', '${filter{%s}{match{$item}{[a-c]}}}', '${map{%s}{<$item>}}', '${map{%s}{${uc:$item}$item}}',
                     '${reduce{%s}{}{$value[$item]}}', '${sort{%s}{lt}{$item}}', '${sort{%s}{gti}{$item}}', '${listcount:%s}',
                     '${listextract{2}{%s}}', '${listextract{-1}{%s}{<$value>}{none}}', '${if inlist{b}{%s}{<$value>}{no}}',
                     '${if inlisti{c}{%s}{<$value>}{no}}', '${if inlist{}{%s}{<$value>}{no}}', '${if forany{%s}{eq{$item}{b}}{yes}{no}}',
                     '${if forall{%s}{match{$item}{^[a-z]\\$}}{yes}{no}}', '${if match_domain{b}{%s}{<$value>}{no}}',
                     '${if match_local_part{A}{%s}{<$value>}{no}}', '${if match_ip{10.0.0.1}{%s}{yes}{no}}',
                     '${map{${filter{%s}{!eq{$item}{}}}}{($item)}}', '${reduce{${sort{%s}{le}{$item}}}{}{$value$item;}}'):
            yield item % text


TEXTS = ['', 'a', 'A', 'b', 'ab', 'abc', '1', '01', '10', '9', 'ä', ' a', '-1', 'a.b', '192.0.2.1']
COMPARE = ['eq', 'eqi', 'lt', 'lti', 'le', 'lei', 'gt', 'gti', 'ge', 'gei', 'match', 'inlist', 'inlisti', 'match_domain',
           'match_local_part', 'match_address', 'match_ip']
VALUES = ['0', '1', '-1', '', '10', '1K', '1024', '2m', 'x', '1x', ' 5 ', '0x10', '010', '9223372036854775807', '1.5']


def conditions():
    dice = Dice(3)
    for word in COMPARE:
        for left in TEXTS:
            for _ in range(2):
                yield '${if %s%s{%s}{%s}{yes}{no}}' % (dice.pick(['', '', '!']), word, left, dice.pick(TEXTS))
    for word in ('=', '==', '<', '>', '<=', '>='):
        for left in VALUES:
            for _ in range(2):
                yield '${if %s {%s}{%s}{yes}{no}}' % (word, left, dice.pick(VALUES))
    for word in ('bool', 'bool_lax', 'isip', 'isip4', 'isip6', 'exists'):
        for s in STRINGS:
            yield '${if %s{%s}{yes}{no}}' % (word, s)


PATTERNS = ['a', '^a', 'b\\$', '.', '(.)(.)', '[a-c]+', '(x)|(b)', 'A', '(?i)A', '', 'a|b', '\\\\s', '\\N\\bb\\N', '(', '\\N(\\w+)\\s*\\N', '(a)?b',
            '\\N[^a]\\N', '^\\$', '\\N(?<!a)b\\N']
SUBJECTS = ['abc', 'aabbcc', 'b', '', 'a b c', 'A-B-C', 'a\\nb', 'x']


def patterns():
    dice = Dice(5)
    for p in PATTERNS:
        for s in SUBJECTS:
            yield '${if match{%s}{%s}{<$0|$1|$2>}{no}}' % (s, p)
            yield '${sg{%s}{%s}{%s}}' % (s, p, dice.pick(['-', '', '<\\$0>', '\\$1\\$2', '\\$2']))
    for s in SUBJECTS:
        for chars in ('abc', 'ab ', '\\n', '', 'a-c'):
            for to in ('x', 'xyz', '', 'x'):
                yield '${tr{%s}{%s}{%s}}' % (s, chars, to)


def expression(dice, depth):
    """A random expression of arithmetic."""
    kind = dice.below(8 if depth > 0 else 2)
    if kind <= 1:
        return dice.pick(['0', '1', '2', '3', '7', '10', '0x1f', '010', '42', '1K', '100', '255'])
    if kind == 2:
        return '(' + expression(dice, depth - 1) + ')'
    if kind == 3:
        return dice.pick(['-', '~', '- ', '+']) + expression(dice, depth - 1)
    return expression(dice, depth - 1) + dice.pick(['+', '-', '*', '/', '%', '<<', '>>', '&', '^', '|', ' + ', ' - ', ' * ']) + \
        expression(dice, depth - 1)


def arithmetic():
    dice = Dice(7)
    for _ in range(250):
        yield '${eval:%s}' % expression(dice, 3)
    for _ in range(50):
        yield '${eval10:%s}' % expression(dice, 2)


def nested(dice, depth):
    """A random expression that is well formed, of items in items."""
    if depth == 0 or dice.below(6) == 0:
        return dice.pick(['a', 'b', 'Abc', '42', 'a:b:c', 'x y', '', 'user@domain.test', '$primary_hostname', '$qualify_domain', '-3', 'true', '\\\\',
                          '\\n', '$acl_m0', '$item', 'key=val k2="v 2"', '192.0.2.7'])
    sub = lambda: nested(dice, depth - 1)       # noqa: E731
    kind = dice.below(16)
    if kind <= 3:
        return '${%s:%s}' % (dice.pick(['lc', 'uc', 'strlen', 'md5', 'base64', 'quote', 'escape', 'length_4', 'substr_1', 'rxquote', 'domain',
                                        'local_part', 'listcount', 'base64d', 'hexquote', 'eval', 's_-2', 'h_3', 'rfc2047']), sub())
    if kind <= 6:
        return '${if %s{%s}{%s}}' % (condition(dice, depth - 1), sub(), sub())
    if kind == 7:
        return '${if %s{%s}fail}' % (condition(dice, depth - 1), sub())
    if kind == 8:
        return '${extract{%s}{:}{%s}{%s}{%s}}' % (dice.pick(['1', '2', '-1', '0']), sub(), dice.pick(['$value', '<$value>']), sub())
    if kind == 9:
        return '${extract{%s}{%s}{$value}{%s}}' % (dice.pick(['key', 'k2', 'none']), sub(), sub())
    if kind == 10:
        return '${map{%s}{%s}}' % (sub(), dice.pick(['[$item]', '${uc:$item}', '$item$item', '${strlen:$item}']))
    if kind == 11:
        return '${sg{%s}{%s}{%s}}' % (sub(), dice.pick(['a', '[a-m]', '(.)b', 'x']), dice.pick(['-', '', '\\$1', 'yy']))
    if kind == 12:
        return '${reduce{%s}{%s}{$value%s$item}}' % (sub(), sub(), dice.pick(['', '+', ' ']))
    if kind == 13:
        return '${filter{%s}{%s}}' % (sub(), condition(dice, depth - 1))
    if kind == 14:
        return '${tr{%s}{abc}{%s}}' % (sub(), dice.pick(['x', 'xyz', '']))
    return sub() + dice.pick(['', ' ', ':', '.']) + sub()


def condition(dice, depth):
    sub = lambda: nested(dice, max(depth - 1, 0))       # noqa: E731
    kind = dice.below(10)
    if kind <= 2:
        return dice.pick(['eq', 'eqi', 'lt', 'ge', '!eq']) + '{%s}{%s}' % (sub(), sub())
    if kind <= 4:
        return 'match{%s}{%s}' % (sub(), dice.pick(['(a)', '(.)(.)', '^b', '(?i)(X)', '[0-9]+']))
    if kind == 5:
        return '%s {%s}{%s}' % (dice.pick(['<', '>', '=', '>=']), dice.pick(['1', '${strlen:%s}' % sub()]), dice.pick(['2', '${strlen:%s}' % sub()]))
    if kind == 6 and depth > 0:
        return dice.pick(['and', 'or', '!and', '!or']) + '{{%s}{%s}}' % (condition(dice, depth - 1), condition(dice, depth - 1))
    if kind == 7:
        return 'inlist{%s}{%s}' % (sub(), dice.pick(['a:b:c', 'x', '<, a,b', '']))
    if kind == 8:
        return dice.pick(['forany', 'forall']) + '{%s}{%s}' % (sub(), dice.pick(['eq{$item}{a}', 'match{$item}{a}', '!eq{$item}{}']))
    return dice.pick(['def:primary_hostname ', 'def:sender_ident ', 'isip{%s}' % sub(), 'bool_lax{%s}' % sub(), 'def:acl_m0 '])


def nestings():
    dice = Dice(11)
    for _ in range(500):
        yield nested(dice, 3)


# What is left over from a line before shows in these, with Debian's Exim.
UNSTEADY = {'${extract{k2}{{h_3:b}}{$value}{\\n:a}}'}


def broken():
    """Well-formed expressions with one thing wrong."""
    dice = Dice(13)
    for _ in range(600):
        text = nested(dice, 2)
        for _ in range(20):
            if len(text) >= 8:
                break
            text = nested(dice, 2)
        at = dice.below(len(text))
        how = dice.below(5)
        if how == 0:
            text = text[:at] + text[at + 1:]
        elif how == 1:
            text = text[:at]
        elif how == 2:
            text = text[:at] + dice.pick(['{', '}', '$', '\\', ' ', 'x', ':', '${', '!']) + text[at:]
        elif how == 3:
            text = text[:at] + text[at:at + 3] + text[at:]
        else:
            brackets = [i for i, ch in enumerate(text) if ch in '{}']
            if brackets:
                at = dice.pick(brackets)
                text = text[:at] + text[at + 1:]
        # A capture that nothing set: Debian's Exim may show that of a line before.
        if not re.search(r'(?<!\\)\$1', text) and text.strip() == text and not text.endswith('\\') and text[:1] not in ('#', '') and not text.startswith('    ='):
            yield text


FILES = {
    'operators': operators, 'numbers': numeric_items, 'lists': list_items, 'conditions': conditions, 'patterns': patterns,
    'arithmetic': arithmetic, 'nested': nestings, 'broken': broken,
}


def lines(name):
    seen = set()
    for line in FILES[name]():
        # Lines are read without white space at their ends, and a backslash there joins the next one.
        # One with a capital in front is read as the definition of a macro.
        if line and line not in seen and line not in UNSTEADY and not line[0].isupper() and not line.startswith(('#', ' ')) and not line.endswith((' ', '\\')):
            seen.add(line)
            yield line


def path_of(name):
    return corpus.path_of('generated-' + name)


def write():
    for name in FILES:
        try:
            known = {e.expression: e.result for e in corpus.read(path_of(name))[0]}
        except FileNotFoundError:
            known = {}
        entries = [corpus.Entry(line, known.get(line)) for line in lines(name)]
        entries[0].comment = ['# Written by generate.py']
        corpus.write(path_of(name), entries)
