"""Makes tests/e2e/sieve_recorded.json: what Exim's -bf says about many Sieve scripts and messages.

    python3 tests/support/record_sieve.py EXIM > tests/e2e/sieve_recorded.json

EXIM is a binary of Exim 4.96 with Sieve filters. Scripts on which Martlet differs on purpose (docs/filters.md) are not here.
"""
import getpass
import json
import subprocess
import sys
import tempfile

CONF = '''primary_hostname = host.example
qualify_domain = test.ex
spool_directory = {0}/spool
keep_environment =
'''

MESSAGE = '''From: "Joe Q" <joe+ext@example.com>
To: fred@test.ex, Barney <barney@Example.ORG>
Subject: Hello World
X-Num: 42
X-Num2: 042x
X-Neg: -5
X-Empty:
X-Enc: =?iso-8859-1?Q?caf=E9?= =?utf-8?B?w6k=?= tail
X-Nul: a =?iso-8859-1?q?abc=00def?= b
X-Bad: =?iso-8859-1?q?abc
X-Fold: a
 b
\tc
X-Q: a"b\\c

body
'''

# Whole scripts, without the first line.
SCRIPTS = r'''
keep;
discard;
stop;
keep; keep;
redirect "a@b.c";
redirect "a@b.c"; keep;
redirect "unq";
redirect "";
redirect;
redirect ["a@b.c"];
redirect "a@b.c" "d@e.f";
redirect "<a@b.c>";
redirect :copy "x@y";
require ["copy"]; redirect :copy "x@y";
require ["copy"]; redirect :COPY "a@b.c";
require "copy"; redirect :copy "a@b.c"; discard;
require "fileinto"; fileinto "foo";
require "fileinto"; fileinto "/a/../b";
require "fileinto"; fileinto "../x";
require "fileinto"; fileinto "a..b";
require "fileinto"; fileinto "a.b";
require "fileinto"; fileinto "inbox";
require "fileinto"; fileinto "";
require "fileinto"; fileinto "a b"; fileinto "a b";
require "fileinto"; fileinto
require "fileinto"; fileinto ["x"];
require "fileinto"; fileinto ["x","y"];
require "fileinto"; fileinto 5;
require "fileinto"; fileinto :copy "x";
require "fileinto"; fileinto "INBOX"; discard;
require ["fileinto","copy"]; fileinto :copy "x";
require ["fileinto","copy"]; fileinto :copy :copy "x";
require ["fileinto","copy"]; fileinto "x" :copy;
require["fileinto","copy"];fileinto:copy"x";
fileinto "x";
fileinto;
require "nosuch";
require "NoSuch","b";
require ["FileInto"]; fileinto "x";
require []; keep;
require "vacation"; vacation "gone";
require "enotify"; keep;
require "encoded-character"; keep;
require "envelope"; keep;
require "comparator-i;ascii-numeric"; keep;
require "comparator-i;octet"; keep;
require "comparator-i;ascii-casemap"; keep;
require "comparator-en;ascii-casemap"; keep;
require "subaddress"; keep;
require "reject";
require "ereject";
require "notify";
require "relational";
require "imap4flags";
require "variables";
require "body";
require "vacation-seconds";
require "mailbox";
require "date";
require "index";
require "regex";
require "include";
require "editheader";
require "environment";
require;
require keep;
require "fileinto" "copy";
require "fileinto"
require ["fileinto" "copy"];
require ["fileinto",];
require "";
keep; require "fileinto";
if true { require "fileinto"; }
if true { keep; }
if false { discard; } else { redirect "a@b.c"; }
if false { discard; } elsif true { redirect "a@b.c"; } else { keep; }
if not true {discard;}
if allof(true,false) {discard;}
if anyof(true,false) {discard;}
if allof() {discard;}
if anyof(true) {discard;} stop; garbage here
garbage;
if
if true
if true {
if true { keep
keep
keep ;
keep /* c */ ; /* d */
keep /* c
/* x
KEEP;
Redirect "a@b.c";
IF TRUE {DISCARD;}
elsif true {}
else {}
;
}
"x"
keep "x";
discard :x;
if true { stop; } discard;
discard; keep;
discard; redirect "a@b.c";
reject "x";
:foo;
if true {} keep
stop
stop; require "x";
stop; garbage
if header "x" "y" {
if size :over 5 keep;
if true keep;
if true { keep; } elsif { }
if true { keep; } elsif
if true { keep; } else
if true {keep;} else {discard;} else {stop;}
if false {keep;} elsif false {redirect "a@b.c";} elsif true {discard;}
if true {} ; keep;
keepx;
keep_x;
keep-x;
keepkeep;
kee p;
if truefoo {}
if true2 {}
if allof(true true) {}
if allof(true {}
if not {}
if not
"abc
/
/x
if true { if true { if true { discard; } } }
if false { garbage; }
if false { redirect "unq"; }
if false { fileinto "x"; }
if false { stop; garbage }
if true { stop; garbage }
keep; stop keep;
ifTABtrue{keep;}
keep;keep;
if true{}
if false {} elsif header :foo {}
vacation "x";
require "vacation"; vacation;
require "vacation"; vacation :days 0 "x";
require "vacation"; vacation :days 40 "x";
require "vacation"; vacation :days "1" "x";
require "vacation"; vacation :days 1 :days 1 "x";
require "vacation"; vacation :days;
require "vacation"; vacation :days 1K "x";
require "vacation"; vacation :from "a@b" "x";
require "vacation"; vacation :from "A B <a@b>" "x";
require "vacation"; vacation :from "a@b, c@d" "x";
require "vacation"; vacation :from "" "x";
require "vacation"; vacation :from 5 "x";
require "vacation"; vacation :addresses "bad" "x";
require "vacation"; vacation :addresses [] "x";
require "vacation"; vacation :addresses 5 "x";
require "vacation"; vacation :mime :mime "X: y";
require "vacation"; vacation :mime "X-Y: é";
require "vacation"; vacation :handle "a" "x";
require "vacation"; vacation :handle 5 "x";
require "vacation"; vacation :foo "x";
require "vacation"; vacation :subject;
require "vacation"; vacation :subject "a";
require "vacation"; vacation :subject 5 "a";
require "vacation"; vacation :seconds 5 "x";
require "vacation"; vacation "x" "y";
require "vacation"; vacation ["x"];
require "vacation"; vacation "x"; vacation "y";
require "vacation"; if false { vacation "x"; } vacation "y";
require "vacation"; vacation "x"; discard;
notify "mailto:a@b";
'''

# More than one line.
LONG = [
    '', 'keep; # d\n', 'keep; /* a \n */\n', '\n\nfoo;', 'if header :foo\n"x" {}', 'if header\n\n"x"\n\n{}', 'require\n"nosuch"\n;',
    'require "a\nb\n";', 'redirect text:\nunq\n.\n;', 'redirect\n\n"unq"\n;', 'redirect "a\nb"\n;', 'keep\n\n;\n\n',
    'if true {\nkeep;\n\n', '# c\n# d\nfoo;', 'redirect text:\na@b.c\n.\n;', 'if header "subject" text:Hello {}',
    'if header "subject" text:\nHello World\n', '# x', '\v keep;', 'if true\n{\ndiscard;\n}\nelsif\nfoo',
    'require "fileinto"; # c\nif header :contains "subject" "hello" # d\n{ fileinto "x"; stop; } # e\ngarbage',
    'if header :contains "subject" [\n"foo",\n"hello"\n] {\n  discard;\n}\n', 'if allof(\n  true,\n  not\n  false) { discard; }\n',
]

REQUIRE = 'require ["encoded-character","comparator-i;ascii-numeric","envelope","subaddress"];\n'
TESTS = r'''
header "subject" "Hello World"
header "subject" "hello world"
header :comparator "i;octet" "subject" "hello world"
header :comparator "i;octet" "subject" "Hello World"
header ["x","subject"] ["y","hello world"]
header :contains "subject" "LLO"
header :contains :comparator "i;octet" "subject" "LLO"
header :contains "nothere" "x"
header :matches "subject" "h*d"
header :matches "subject" "h?llo*"
header :matches "subject" "*"
header :matches "subject" "h\\?llo*"
header :matches "subject" "Hello"
header :matches "subject" "*o*o*"
header :matches "subject" "*o*o*o*"
header :matches "subject" "?????????????"
header :matches "subject" "???????????"
header :is :is "subject" "x"
header :is :contains "subject" "x"
header :comparator "i;foo" "subject" "x"
header :comparator "i;ascii-casemap" "subject" "hello world"
header :comparator "en;ascii-casemap" "subject" "hello world"
header :COMPARATOR "I;ASCII-CASEMAP" "subject" "hello world"
header :comparator ["i;octet"] "x" "y"
header :comparator "I;OCTET" "x" "y"
header :comparator "i;octet" :comparator "i;octet" "x" "y"
header :comparator
:comparator
header :foo "subject" "x"
header "sub:ject" "x"
header "sub ject" "x"
header [] "x"
header "subject" []
header ["subject",] "x"
header "subject" 5
header :is
header
header "subject"
header :all "subject" "x"
header "x-enc" "caféé tail"
header "x-enc" "CAFéé tail"
header "x-enc" "café tail"
header :contains "x-nul" "def"
header :matches "x-nul" "a abc?def b"
header :contains "x-bad" "=?iso-8859-1?q?abc"
header "x-fold" "a b c"
header :matches "x-fold" "a*c"
header "x-q" "a\"b\\c"
header "x-q" "a\"b\c"
header :comparator "i;ascii-numeric" "x-num" "42"
header :comparator "i;ascii-numeric" "x-num" "43"
header :comparator "i;ascii-numeric" "x-neg" "foo"
header :comparator "i;ascii-numeric" "x-num" "foo"
header :comparator "i;ascii-numeric" "x-num" "42abc"
header :comparator "i;ascii-numeric" :contains "x-num" "2"
header :comparator "i;ascii-numeric" :matches "x-num" "*"
header :contains :comparator "i;ascii-numeric" "x-num" "2"
header :contains "subject" "${hex:48 65}llo"
header :contains "subject" "${hex:48}${hex:65}llo"
header :contains "subject" "${unicode:48 65}llo"
header :contains "subject" "${UNICODE: 000048TAB65 }llo"
header "subject" "${unicode:110000}"
header "subject" "${unicode:d800}"
header "subject" "${unicode:e000}"
header "subject" "${hex:zz}"
header "subject" "${hex:123}"
header "subject" "${foo:48}"
header "x-enc" "caf${unicode:e9}${hex:c3 a9} tail"
header "subject" "x
header "x" "\
address "from" "joe+ext@example.com"
address :localpart "from" "joe+ext"
address :domain "from" "example.com"
address :domain "from" "EXAMPLE.com"
address :all "from" "JOE+ext@example.com"
address :domain "to" "example.org"
address :comparator "i;octet" :domain "to" "example.org"
address :comparator "i;octet" :domain "to" "Example.ORG"
address "subject" "x"
address "x-num" "42"
address "foo" "x"
address "sender" "x"
address "bcc" "x"
address "resent-from" "x"
address "resent-to" "x"
address ["from","to"] "fred@test.ex"
address :contains "from" "Q"
address :contains "to" "barney"
address :matches "to" "*@*.org"
address :localpart :is "from" "joe+ext"
address :is :localpart "from" "joe+ext"
address :localpart :domain "from" "joe"
address "from:" "x"
address :user "from" "joe+ext"
address :detail "from" "ext"
address :subaddress "x" "y"
address :is
address "from"
envelope "from" "s@x.y"
envelope "from" "CALLER@test.ex"
envelope "to" "fred@test.ex"
envelope "FROM" "CALLER@test.ex"
envelope :localpart "to" "fred"
envelope :domain "to" "test.ex"
envelope "cc" "x"
envelope "from:" "x"
envelope ["from","to"] "fred@test.ex"
envelope :all "to" "fred@test.ex"
envelope :user "to" "fred"
envelope :matches :user "to" "*"
envelope
envelope "to"
envelope 5
exists "subject"
exists ["subject","from"]
exists ["subject","nope"]
exists []
exists
exists 5
exists "x-empty"
size :over 10
size :over 1K
size :under 1M
size :under 1G
size :over
size 10
size :over :under 5
size :over "5"
size :over -5
size :over 99999999999999999999
size :over 4294967296
size :under 4294967297
size :over 4G
size :over 1KB
size :over 0
size :under 0
not not true
not (true)
allof(true)
allof (true, not false)
anyof(false,)
allof true
true()
valid_notify_method "mailto:a@b"
notify_method_capability "mailto:a@b" "online" "maybe"
date "x"
string "a" "b"
body "x"
hasflag "x"
nosuch
'''

OPTIONS = [
    ['-bfs', '-ext'], ['-bfp', 'pre-'], ['-f', 'other@y.z'], ['-f', '<>'], ['-bfd', 'dom.ain'], ['-bfs', '-ext', '-bfp', 'pre-', '-bfd', 'dom.ain'],
]
OPTION_TESTS = [
    'envelope :localpart "to" "fred"', 'envelope :localpart "to" "fred-ext"', 'envelope :all "to" "fred-ext@test.ex"',
    'envelope :all "from" "other@y.z"', 'envelope :user "to" "fred-ext"', 'envelope :user "to" "pre-fred"', 'envelope :detail "to" "ext"',
    'envelope :domain "to" "dom.ain"', 'envelope :contains "from" "@"',
]


def cases():
    """(filter, options, message)"""
    first = '# Sieve filter\n'
    for line in SCRIPTS.replace('TAB', '\t').strip('\n').split('\n'):
        yield first + line, [], MESSAGE
    for text in LONG:
        yield first + text, [], MESSAGE
    for test in TESTS.replace('TAB', '\t').strip('\n').split('\n'):
        yield f'{first}{REQUIRE}if {test} {{ discard; }}', [], MESSAGE
    for options in OPTIONS:
        for test in OPTION_TESTS:
            yield f'{first}{REQUIRE}if {test} {{ discard; }}', options, MESSAGE
    for text in ('#Sieve filter\nkeep;', '# sieve filter foo\nkeep;', '#sieve filterkeep;', '#sievefilter\nkeep;', '\n\n# Sieve filter\nfoo;'):
        yield text, [], MESSAGE


def run(binary, conf, name, text, options, message):
    with open(name, 'w', newline='') as f:
        f.write(text)
    done = subprocess.run([binary, '-C', conf, '-bf', name, '-bfl', 'fred', *options], input=message.encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    return done.stdout.decode('utf-8', 'replace').replace(name, 'FILE').replace(getpass.getuser() + '@test.ex', 'CALLER@test.ex'), done.returncode


def main():
    found = []
    with tempfile.TemporaryDirectory() as d:
        conf = d + '/conf'
        with open(conf, 'w') as f:
            f.write(CONF.format(d))
        for text, options, message in cases():
            output, status = run(sys.argv[1], conf, d + '/filter', text, options, message)
            found.append({'filter': text, 'options': options, 'message': message, 'output': output, 'status': status})
    json.dump(found, sys.stdout, indent=0, ensure_ascii=False)
    print()


if __name__ == '__main__':
    main()
