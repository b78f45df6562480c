/* The language by example: expression, what comes out, whether it is tainted. Results and texts are those of Exim. */
#include "expand/expand.h"

#include <stdlib.h>
#include <unistd.h>
#include "base/test.h"
#include "config/config.h"
#include "core/ctx.h"
#include "expand/expand_test.h"
#include "expand/foreign.h"
#include "expand/values.h"
#include "loop/fiber.h"
#include "message/message.h"

struct example {
  const char *text, *value; /* value NULL: an error */
  const char *error;
  bool tainted;
};

static struct arena *a;
static struct config *config;
static struct ctx *c;

static const char config_text[] =
    "primary_hostname = host.test.ex\n"
    "headers_charset = utf-8\n"
    "perl_startup = sub id { $_[0] } sub two { Exim::expand_string($_[0]) } sub count { ++$n } sub undefd { undef } "
    "sub last_word { exit 2 } sub bad { die qq(bad\\n) }\n"
    "domainlist dlist = *.aa.bb : ^\\Nxxx(.*)\n"
    "hostlist hlist = 192.0.2.1 : 2001:db8::1\n"
    "domainlist elist = +dlist : c\n";

static void add_header(const char *text) { message_add_header(c->message, 0, str_tainted(str_c(text))); }

static int setup(void **state) {
  struct str errors;
  struct config_source s = {.paths = STR("test"), .text = str_c(config_text), .expand = expand_config_text};
  a = arena_new("test");
  if (config_read(&s, a, &config, &errors) != 0) {
    fprintf(stderr, "%.*s\n", STRF(errors));
    return -1;
  }
  c = ctx_new(a, config);
  c->is_test = true;
  c->message = message_new("test");
  c->message->reverse_path = str_tainted(STR("Sender@Dom.Ex"));
  message_add_recipient(c->message, str_tainted(STR("a@b.c")));
  message_add_recipient(c->message, str_tainted(STR("\"x:y\"@b.c")));
  add_header("Subject:  =?utf-8?Q?caf=C3=A9?= x \n");
  add_header("To: a@b,\n c@d\n");
  add_header("X-Two: one\n");
  add_header("To: e@f\n");
  add_header("X-Two:\n");
  add_header("X-Two:  t:wo \n");
  c->client->host_address = STR("192.0.2.9");
  c->client->host_name = str_tainted(STR("client.example"));
  c->vars.local_part = str_tainted(STR("lp"));
  return 0;
}

static int teardown(void **state) {
  expand_cache_clear();
  message_free(c->message);
  arena_free(a);
  loop_done();
  return 0;
}

static void check(const struct example *e) {
  struct str value = STR_UNSET;
  c->error = STR_UNSET;
  int rc = expand_text(c, str_c(e->text), &value);
  if (e->value == NULL) {
    if (rc == 0)
      fail_msg("%s gives '%.*s', expected the error %s", e->text, STRF(value), e->error);
    if (!str_eq_c(c->error, e->error))
      fail_msg("%s: error '%.*s', expected '%s'", e->text, STRF(c->error), e->error);
    return;
  }
  if (rc != 0)
    fail_msg("%s: error '%.*s', expected '%s'", e->text, STRF(c->error), e->value);
  if (!str_eq_c(value, e->value))
    fail_msg("%s gives '%.*s', expected '%s'", e->text, STRF(value), e->value);
  if (str_is_tainted(value) != e->tainted)
    fail_msg("%s: tainted is %d", e->text, str_is_tainted(value));
}

static void check_all(const struct example *e, size_t n) {
  for (size_t i = 0; i < n; i++)
    check(&e[i]);
}
#define CHECK(...)                                                                                                     \
  do {                                                                                                                 \
    static const struct example examples_[] = {__VA_ARGS__};                                                           \
    check_all(examples_, sizeof examples_ / sizeof *examples_);                                                        \
  } while (0)

static void test_text(void **state) {
  CHECK({"", ""}, {"abc", "abc"}, {"}abc}{", "}abc}{"}, {"a\\n\\t\\101\\x41\\x4g\\q\\\\", "a\n\tAA\x04gq\\"},
      {"\\Na$b}\\Nc", "a$b}c"}, {"\\Na$b", "a$b"}, {"\\\\$primary_hostname", "\\host.test.ex"},
      {"$primary_hostname-${primary_hostname}x", "host.test.ex-host.test.exx"}, {"$1${2}$12345", ""},
      {"${lc:AB}C}", "abC}"}, {"abc\\", NULL, "\\ at end of string"},
      {"abc$", NULL, "$ not followed by letter, digit, or {"}, {"a$$b", NULL, "$ not followed by letter, digit, or {"},
      {"${", NULL, "letter or digit expected after ${"}, {"${1x}", NULL, "} expected after number"},
      {"$foo", NULL, "unknown variable name \"foo\""}, {"${foo}", NULL, "unknown variable in \"${foo}\""},
      {"${foo:x}", NULL, "unknown expansion operator \"foo\""},
      {"${foo{x}}", NULL, "\"${foo\" is not a known operator (or a } is missing in a variable reference)"},
      {"${lc_1:x}", NULL, "unknown expansion operator \"lc_1\" (\"lc\" does not take an _arg)"},
      {"${lc:abc", NULL, "missing } at end of string"},
      {"${lc:$h_x}", NULL, "missing } at end of string - could be header name not terminated by colon"},
      {"$acl_foo", NULL, "unknown variable name \"acl_foo\" (user-defined ACL variables must start acl_c or acl_m)"},
      {"$acl_cx", NULL,
        "unknown variable name \"acl_cx\" (6th character of a user-defined ACL variable must be a digit or underscore)"},
      {"[$acl_c0$acl_m_x$r_y]", "[]"});
}

static void test_if(void **state) {
  CHECK({"${if eq{a}{a}}", "true"}, {"${if eq{a}{b}}", ""}, {"${if !eq{a}{b}{y}{n}}", "y"}, {"${if ! ! eq{a}{b} {y} {n} }x", "nx"},
      {"${if eq{a}{b}{$foo}fail}", NULL, "unknown variable name \"foo\""},
      {"${if eq{a}{b}{y}fail}", NULL, "\"if\" failed and \"fail\" requested"},
      {"${if eq{a}{a}{y}fail}", "y"}, {"${if and{{eq{a}{a}}{match{abc}{(.)}}}{$1}}$1", "a"},
      {"${if or{{eq{a}{b}}{match{abc}{.(.)}}}{$1}}", "b"}, {"${if and{}{y}{n}}${if or{}{y}{n}}", "yn"},
      {"${if >{10}{9k}{y}{n}}${if <={ -1 }{}{y}{n}}${if =={08}{8}{y}{n}}", "nyy"},
      {"${if eqi{a}{A}{y}{n}}${if lt{a}{B}{y}{n}}${if lti{a}{B}{y}{n}}${if gei{b}{B}{y}{n}}", "ynyy"},
      {"${if bool{ YES }{y}{n}}${if bool{0}{y}{n}}${if bool_lax{x}{y}{n}}${if bool_lax{00}{y}{n}}", "ynyy"},
      {"${if isip{1.2.3.4}{y}{n}}${if isip4{::1}{y}{n}}${if isip6{::1}{y}{n}}${if isip{1.2.3}{y}{n}}", "ynyn"},
      {"${if def:tod_epoch{y}{n}}${if def:home{y}{n}}${if def:h_subject:{y}{n}}${if def:h_none:{y}{n}}", "ynyn"},
      {"${if exists{/etc/passwd}{y}{n}}${if exists{/none}{y}{n}}${if exists{etc}{y}{n}}", "ynn"},
      {"${if inlist{b}{a:b}{$value}}[$value]${if inlisti{B}{a:b}{$value}}", "b[]b"},
      {"${if inlist{$local_part}{x:lp}{$value}}", "lp"},
      {"${if forany{a:b}{eq{$item}{b}}{y}{n}}${if forall{a:b}{eq{$item}{b}}{y}{n}}${if forall{}{eq{1}{1}}{y}{n}}", "ynn"},
      {"${if forany_jsons{[\"a\",\"b,c\"]}{eq{$item}{b,c}}{y}{n}}", "y"},
      {"${if match_domain{x.aa.bb}{+dlist}{y}{n}}${if match_domain{c}{+elist}{y}{n}}${if match_domain{d}{+elist}{y}{n}}", "yyn"},
      {"${if match_ip{192.0.2.1}{+hlist}{y}{n}}${if match_ip{1.2.3.4}{1.2.3.0/24}{y}{n}}${if match_ip{}{:1.1.1.1}{y}{n}}", "yyy"},
      {"${if match_local_part{jo}{jack:jo}{$value}{n}}${if match_address{x@y.z}{*@y.z}{y}{n}}", "joy"},
      {"${if crypteq{test}{\\{md5\\}CY9rzUYh03PK3k6DJie09g==}{y}{n}}${if crypteq{tesT}{\\{md5\\}CY9rzUYh03PK3k6DJie09g==}{y}{n}}", "yn"},
      {"${if foo}", NULL, "unknown condition \"foo\""}, {"${if }", NULL, "condition name expected, but found \"}\""},
      {"${if eq{a}}", NULL, "missing 2nd string in {} after \"eq\""}, {"${if bool{x}}", NULL, "unrecognised boolean value \"x\""},
      {"${if ={a}{1}}", NULL, "integer expected but \"a\" found"}, {"${if ={3z}{1}}", NULL, "invalid integer \"3z\""},
      {"${if ={46116860184273879040}{1}}", NULL, "absolute value of integer \"46116860184273879040\" is too large (overflow)"},
      {"${if eq{a}{a}{y}{n}", NULL,
        "curly-bracket problem in conditional yes/no parsing: did not close with '}'\n remaining string is ''"},
      {"${if and{{foo}}}", NULL, "unknown condition \"foo\" inside \"and{...}\" condition"},
      {"${if and{{={a}{1}}}}", NULL, "integer expected but \"a\" found inside \"and{...}\" condition"},
      {"${if match{a}{(}}", NULL, "regular expression error in \"(\": missing closing parenthesis at offset 1"},
      {"${if pam{ : x}{yes}{no}}", "no"}, {"${if radius{fred:}{yes}{no}}", "no"});
}

static void test_lists(void **state) {
  CHECK({"${map{a:b:c}{[$item]}}", "[a]:[b]:[c]"}, {"${map{<; a;b:c}{$item;}}", "a;;;b:c;;"}, {"${map{a:b}{}}", ": "},
      {"${filter{a:b:c}{!eq{$item}{b}}}", "a:c"}, {"${reduce{1:2:3}{0}{${eval:$value+$item}}}", "6"},
      {"${sort{3:10:2}{<}{$item}}${sort{b:A:c}{lti}{$item}}${sort{<,b,a}{ge}{$item}}", "2:3:10A:b:cb,a"},
      {"${listextract{2}{a:b}}${listextract{-2}{a:b}}${listextract{3}{a:b}{x}{no}}", "bano"},
      {"${listcount:a:b}${listcount:}", "20"}, {"${listquote{:}{a:b}}${listquote{:}{}}", "a::b "},
      {"${listnamed:elist}", "*.aa.bb : ^\\Nxxx(.*) : c"}, {"${listnamed_h:dlist}", NULL, "\"dlist\" is not a host named list"},
      {"${map{<;$local_part;x}{[$item]}}", "[lp];[x]", .tainted = true},
      {"${map{a}{${foo:$item}}}", NULL, "unknown expansion operator \"foo\" inside \"map\" item"},
      {"${map{a}{${eval:$item}}}", NULL,
        "\"error in expression evaluation: expecting number or opening parenthesis (after processing \\\"\\\")\" inside \"map\" item"});
}

static void test_fields(void **state) {
  CHECK({"${extract{b}{a=1 b=\"x\\ty\" c=3}}", "x\ty"}, {"${extract{B}{a=1 b=2}{<$value>}{no}}${extract{z}{a=1}{y}{no}}", "<2>no"},
      {"${extract{2}{:}{a:b:c}}${extract{-1}{:}{a:b:c}}${extract{0}{:}{a:b}}${extract{9}{:}{a}{y}{n}}", "bca:bn"},
      {"${extract{${lc:2}}{:}{a:b}{<$value>}}", "<b>"}, {"${extract json{a}{\\{\"a\":[1,\"]\"],\"b\":2\\}}}", "[1,\"]\"]"},
      {"${extract jsons{2}{[1,\"x,y\"]}}", "x,y"}, {"${extract{}{a}}", NULL, "first argument of \"extract\" must not be empty"},
      {"${extract{a}}", NULL, "missing '{' for arg 2 of extract"},
      {"${extract{b}{a=1}{y}fail}", NULL, "\"extract\" failed and \"fail\" requested"},
      {"${extract{1}{@}{$sender_address}}", "Sender", .tainted = true});
}

static void test_strings(void **state) {
  CHECK({"${hash{3}{monty}}${hash_4_62:monty python}${hash{2}{62}{\\x01\\x01\\x01}}", "jmgfbWxjb"}, {"${nhash{8}{63}{monty python}}${nhash_24:monty}", "0/6119"},
      {"${substr{-5}{2}{1234567}}${substr{-3}{2}{12}}${s_-1:abc}${substr_1_1:abc}${substr{9}{a}}", "341abb"},
      {"${length{2}{abc}}${l_9:abc}", "ababc"}, {"${sg{abcabc}{b}{[\\$0]}}${sg{abbab}{a*}{+}}", "a[b]ca[b]c++b+b++b+"},
      {"${tr{abcdea}{ac}{13}}${tr{abc}{abc}{}}", "1b3de1abc"}, {"${uc:a$local_part}", "ALP", .tainted = true},
      {"${quote:a b}${quote:a\"\\n}${quote:}", "\"a b\"\"a\\\"\\n\"\"\""}, {"${quote_local_part:a.b}${quote_local_part:a b}", "a.b\"a b\""},
      {"${rxquote:a.b}${hexquote:a b}${escape:a\\x01\\n}${escape8bit:\\\\\\xe9}", "a\\.ba\\x20ba\\001\\n\\134\\351"},
      {"${strlen:abc}${expand:\\$primary_hostname}", "3host.test.ex"},
      {"${headerwrap_20:aaaa bbbb cccc dddd eeee}", "aaaa bbbb cccc dddd\n\teeee"}, {"${xtextd:a+2Bb}", "a+b"},
      {"${expand:$local_part}", NULL, "internal expansion of \"lp\" failed: attempt to expand tainted string 'lp'"},
      {"${hash{$local_part}{monty}}", NULL, "attempt to use tainted string 'lp' for hash"},
      {"${sg{abc}{b}{\\$1$local_part}}", NULL, "attempt to expand tainted string '$1lp'"},
      {"${substr_x:a}", NULL, "non-digit after underscore in \"substr_x\""},
      {"${length{((((((((((((((((((((1}{a}}", NULL, "\"((((((((((((((((((((1\" is not a positive number (in \"length\" expansion)"},
      {"${hash{3}}", NULL, "Not enough arguments for 'hash' (min is 2)"}, {"${sg{a}{b}{c}{d}}", NULL, "Too many arguments for 'sg' (max is 3)"},
      {"${sg{a}{b}{c}", NULL, "missing '}' after 'sg'"}, {"${substr{1}{-1}{a}}", NULL, "\"-1\" is not a positive number (in \"substr\" expansion)"});
}

static void test_numbers(void **state) {
  CHECK({"${eval:1+2*3}${eval:(1+2)*3}${eval:-7/2}${eval:0x10+010}${eval10:010}${eval:1k}", "79-324101024"},
      {"${eval:~0&7|8^1}${eval:1<<4>>1}${eval:5 % 3}", "1582"}, {"${eval:1/0}", NULL, "error in expression evaluation: divide by zero (after processing \"1/0\")"},
      {"${eval:1 2}", NULL, "error in expression evaluation: expecting operator (after processing \"1 \")"},
      {"${eval:9223372036854775807+1}", NULL,
        "error in expression evaluation: overflow in sum (after processing \"9223372036854775807+1\")"},
      {"${base62:12345}${base62d:0003D7}${base32:42}${base32d:bk}", "0003D712345bk42"},
      {"${time_eval:1d5m}${time_interval:999999}", "867001w4d13h46m39s"},
      {"${time_eval:5}", NULL, "string \"5\" is not an Exim time interval in \"time_eval\" operator"}, {"${randint:1}", "0"});
}

static void test_digests(void **state) {
  CHECK({"${md5:abc}", "900150983cd24fb0d6963f7d28e17f72"}, {"${sha1:abc}", "A9993E364706816ABA3E25717850C26C9CD0D89D"},
      {"${sha256:abc}", "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"},
      {"${sha3_224:abc}", "E642824C3F8CF24AD09234EE7D3C766FC9A3A5168D0C94AD73B46FDF"}, {"${sha2_1:a}", NULL, "unrecognised sha2 variant"},
      {"${hmac{md5}{a}{b}}", "e630e7ba6e333361d5c626a542d0a1c6"}, {"${base64:$local_part}${base64d:YWI=}", "bHA=ab", .tainted = true},
      {"${md5:$local_part}", "351325a660b25474456af5c9a5606c4e"}, {"${hex2b64:1a2b}", "Gis="},
      {"${base64d:a}", NULL, "string \"a\" is not well-formed for \"base64d\" operator"});
}

static void test_addresses(void **state) {
  CHECK({"${address:A B <x@y> (c)}|${domain:x@y}|${local_part:x@y}|${address:a b}", "x@y|y|x|"},
      {"${addresses:>& a@b, C <c@d>}", "a@b&c@d"}, {"${addresses:>}", NULL, "output separator missing in expanding ${addresses:>}"},
      {"${mask:10.111.131.206/28} ${mask:2a00:2:3:4:5:6:7:8/79} ${mask_n:2a00:2:3:4:5:6:7:8/79}",
        "10.111.131.192/28 2a00.0002.0003.0004.0004.0000.0000.0000/79 2a00:2:3:4:4::/79"},
      {"${ipv6norm:1:0:0:2:0:0:0:3} ${ipv6norm:0::1} ${ipv6norm:1::} ${ipv6norm:1.2.3.4}", "1:0:0:2::3 ::1 1:: ::ffff:102:304"},
      {"${ipv6denorm:fe00::1}", "fe00:0000:0000:0000:0000:0000:0000:0001"}, {"${reverse_ip:192.0.2.4}", "4.2.0.192"},
      {"${mask:1.2.3.4/33}", NULL, "mask value too big in \"1.2.3.4/33\""}, {"${mask:x}", NULL, "\"x\" is not an IP address"},
      {"${prvs{a@b}{s}{12}}", NULL, "prvs third argument must be a single digit"},
      {"${prvscheck{${prvs{a@b}{s}{1}}}{s}{$prvscheck_keynum$prvscheck_address$prvscheck_result}}$prvscheck_result", "1a@b11"},
      {"${prvscheck{${prvs{a@b}{s}}}{t}}$prvscheck_result", "a@b"}, {"${prvscheck{a@b}{s}}", ""});
}

static void test_charsets(void **state) {
  CHECK({"${rfc2047d:=?iso-8859-1?Q?a=E9?= =?utf-8?B?YWJj?= x}", "a\xc3\xa9" "abc x"}, {"${rfc2047d:=?utf-8?Q?a b?=}", "=?utf-8?Q?a b?="},
      {"${rfc2047d:=?utf-8?q?a=zz?=}", "=?utf-8?q?a=zz?="}, {"${rfc2047:a b}", "a b"}, {"${rfc2047:a?b \xc3\xa9}", "=?utf-8?Q?a=3Fb_=C3=A9?="},
      {"${from_utf8:\xc3\xa9\xc4\x80}", "\xe9_"}, {"${utf8clean:a\\xffb\\xe2\\x82}", "a?b?"},
      {"${utf8_domain_to_alabel:b\xc3\xbc" "cher.example}", "xn--bcher-kva.example"},
      {"${utf8_localpart_to_alabel:a}${utf8_localpart_to_alabel:stra\303\237e}", "axn--strae-oqa"},
      {"${utf8_localpart_from_alabel:xn--strae-oqa}", "stra\303\237e"},
      {"${utf8_localpart_from_alabel:a}", NULL, "error converting alabel (a) to utf8: bad alabel prefix"},
      {"${imapfolder{Foo//Bar/}}", "Foo.Bar"}, {"${imapfolder{Foo/Bar}{.}{/}}", "Foo&AC8-Bar"},
      {"${imapfolder{R\303\244ksm\303\266rg\303\245s}}", "R&AOQ-ksm&APY-rg&AOU-s"},
      {"${imapfolder{a&\360\237\230\200}}${imapfolder{$local_part}}", "a&-&2D3eAA-lp", NULL, true},
      {"${imapfolder{a.b}}", NULL, "imapfolder: illegal character '.'"},
      {"${imapfolder{a}{}}", NULL, "IMAP folder separator must be one character, found \"\""},
      {"${imapfolder{\377}}", NULL, "imapfolder: iconv() failed to convert from utf-8: Invalid or incomplete multibyte or wide character"});
}

static void test_headers(void **state) {
  CHECK({"[$h_subject:]", "[caf\xc3\xa9 x]", .tainted = true}, {"[$rh_subject:]", "[  =?utf-8?Q?caf=C3=A9?= x \n]", .tainted = true},
      {"[$bheader_SUBJECT:]", "[caf\xc3\xa9 x]", .tainted = true}, {"$h_to:", "a@b,\n c@d,\ne@f", .tainted = true}, {"$h_x-two:", "one\nt:wo", .tainted = true},
      {"$lh_x-two:", " one::  t::wo ", .tainted = true}, {"[$h_none:]$h_none x", "[] x"}, {"${if def:h_x-two:{y}{n}}", "y"},
      {"$reply_address|$recipients_count|$recipients|$recipients_list", "|2|a@b.c, \"x:y\"@b.c|a@b.c:\"x::y\"@b.c", .tainted = true},
      {"$sender_address_domain|$sender_address_local_part", "Dom.Ex|Sender", .tainted = true},
      {"$sender_host_address $sender_host_name", "192.0.2.9 client.example", .tainted = true});
}

static void test_outside(void **state) {
  CHECK({"${run{/bin/echo a ${lc:B} \"c  d\"}}$runrc$value", "a b c  d\n0a b c  d\n"}, {"${run{/bin/false}{y}{n}}$runrc", "n1"},
      {"${run{/nonexistent}{y}{n}}$runrc", "n127"}, {"${run,preexpand{/bin/echo ${lc:A B}}}", "a b\n"}, {"${run{/bin/echo $local_part}}", "lp\n"},
      {"${run{/bin/$local_part}}", NULL, "Tainted path for command: '/bin/lp'"},
      {"${run,x{a}}", NULL, "bad option 'x' for run"}, {"${run{/bin/echo ${foo:}}}", NULL,
        "Expansion of \"${foo:}\" from command \"/bin/echo ${foo:}\" in ${run} expansion failed: unknown expansion operator \"foo\""},
      {"${readfile{/dev/null}}", ""}, {"${readfile{/nonexistent}}", NULL, "failed to open /nonexistent: No such file or directory"},
      {"${readfile{/etc/$local_part}}", NULL, "Tainted filename '/etc/lp'"}, {"${env{MARTLET_TEST}{<$value>}{no}}${env{MARTLET_NONE}{y}{no}}", "<set>no"},
      {"${readsocket{/nonexistent}{x}}", NULL, "failed to connect to socket /nonexistent: No such file or directory"},
      {"${readsocket{/nonexistent}{x}{5s}{}{failed}}", "failed"}, {"${dlfunc{/nonexistent}{b}}", NULL, "dlopen \"/nonexistent\" failed: /nonexistent: cannot open shared object file: No such file or directory"},
      {"${dlfunc{libc.so.6}{abort}}", NULL, "dlfunc{libc.so.6}{abort} failed: its process ended before it returned"},
      {"${dlfunc{/$local_part}{b}}", NULL, "Tainted filename for dlfunc: '/lp'"},
      {"${lookup{root}lsearch{/etc/passwd}{${extract{2}{:}{$value}}}{no}}", "0"}, {"${lookup{nobody-at-all}lsearch{/etc/passwd}{y}fail}", NULL, "\"lookup\" failed and \"fail\" requested"},
      {"${lookup{a}none{/x}}", NULL, "unknown lookup type \"none\""}, {"${lookup{a}lsearch{/etc/$local_part}}", NULL, "NULL"});
}

static void test_perl(void **state) {
  CHECK({"${perl{id}{a b}}${perl{two}{\\$primary_hostname}}", "a bhost.test.ex"},
      {"${perl{two}{\\${perl{id\\}{x\\}\\}}}${perl{count}}${perl{count}}", "x12"}, {"${perl{undefd}}", NULL, "Perl subroutine \"undefd\" returned undef to force failure"},
      {"${perl{bad}}", NULL, "bad\n"}, {"${perl{none}}", NULL, "Undefined subroutine &main::none called.\n"},
      {"${perl{two}{\\$none}}", NULL, "syntax error in Exim::expand_string argument: unknown variable name \"none\" at (eval 1) line 1.\n"},
      {"${perl{last_word}}", NULL, "Perl interpreter: it has ended"}, {"${perl{count}}", "1"});
}

static int run_outside(void *arg) {
  test_outside(NULL);
  test_perl(NULL);
  return 0;
}

static void test_in_fiber(void **state) {
  setenv("MARTLET_TEST", "set", 1);
  loop_init();
  loop_run(run_outside, NULL);
}

static void test_srs(void **state) {
  CHECK({"${srs_encode{key}{}{f.g}}", ""}, {"${srs_encode{key}{@}{f.g}}", NULL, "domain missing or malformed"},
      {"${if match{${srs_encode{key}{User@Orig.com}{f.g}}}{^SRS0=[0-9a-f]{4\\}=[a-z2-7]{2\\}=Orig.com=User@f.g\\$}{y}{n}}", "y"},
      {"${if inbound_srs{${sg{${srs_encode{key}{user@orig.com}{f.g}}}{@.*}{}}}{key}{<$srs_recipient>}{no}}", "<user@orig.com>"},
      {"${if inbound_srs{${sg{${srs_encode{key}{\"a b\"@orig.com}{f.g}}}{\"([^\"]*).*}{\\$1}}}{key}{$srs_recipient}{no}}", "\"a b\"@orig.com"},
      {"${if inbound_srs{${sg{${srs_encode{key}{user@orig.com}{f.g}}}{@.*}{}}}{other}{y}{no$srs_recipient}}", "no"},
      {"${if inbound_srs{SRS0=abcd=aa=b.c=d}{}{y$srs_recipient}{no}}${if inbound_srs{SRS0=a=1a=b=c}{}{y}{n}}", "yn"},
      {"${if match{${srs_encode{secret}{user@orig.com}{fwd.com}}}{^SRS0=e110=..=orig.com=user@fwd.com\\$}{y}{n}}", "y"},
      {"${if match{${srs_encode,v2{key}{User@Orig.com}{f.g}}}{^SRS0=[a-z2-7]{8\\}=[a-z2-7]{2\\}=Orig.com=User@f.g\\$}{y}{n}}", "y"},
      {"${if inbound_srs{${sg{${srs_encode,v2{key}{user@orig.com}{f.g}}}{@.*}{}}}{key}{<$srs_recipient>}{no}}", "<user@orig.com>"},
      {"${if inbound_srs{${uc:${sg{${srs_encode,v2{key}{user@orig.com}{f.g}}}{@.*}{}}}}{key}{<$srs_recipient>}{no}}", "<user@orig.com>"},
      {"${if inbound_srs{${uc:${sg{${srs_encode{key}{user@orig.com}{f.g}}}{@.*}{}}}}{key}{<$srs_recipient>}{no}}", "<user@orig.com>"},
      {"${if inbound_srs{${sg{${srs_encode,v2{key}{user@orig.com}{f.g}}}{@.*}{}}}{other}{y}{no$srs_recipient}}", "no"},
      {"${if inbound_srs{${sg{${srs_encode,v2{key}{user@orig.com}{f.g}}}{(=..)(=orig.*)@.*}{=aa\\$2}}}{key}{y}{no}}", "no"},
      {"${if inbound_srs{${sg{${srs_encode,v2{key}{\"a b\"@orig.com}{f.g}}}{\"([^\"]*).*}{\\$1}}}{key}{$srs_recipient}{no}}", "\"a b\"@orig.com"},
      {"${if match{${srs_encode,v2{key}{SRS0=Ab/c=TT=o.com=u@s.ex}{f.g}}}{^SRS1=[a-z2-7]{8\\}=s.ex==Ab/c=TT=o.com=u@f.g\\$}{y}{n}}", "y"},
      {"${if inbound_srs{${sg{${srs_encode,v2{key}{SRS0=Abc=TT=o.com=u@s.ex}{f.g}}}{@.*}{}}}{key}{$srs_recipient}{no}}", "SRS0=Abc=TT=o.com=u@s.ex"},
      {"${if inbound_srs{${sg{${srs_encode,v2{key}{SRS1=zz=s.ex==Abc=TT=o.com=u@t.ex}{f.g}}}{@.*}{}}}{key}{$srs_recipient}{no}}",
        "SRS0=Abc=TT=o.com=u@s.ex"},
      {"${if inbound_srs{${sg{${srs_encode,v2{key}{SRS0=Abc=TT=o.com=u@s.ex}{f.g}}}{@.*}{}}}{other}{y}{no}}", "no"},
      {"${if inbound_srs{SRS1=abcdefgh=s.ex==a=TT=o=u}{}{y}{no}}${if inbound_srs{SRS1=abcdefgh}{k}{y}{no}}", "nono"},
      {"${srs_encode,v3{k}{a@b}{c}}", NULL, "bad option 'v3' for srs_encode"}, {"${srs_encode{k}{a@b}}", NULL, "Not enough arguments for 'srs_encode' (min is 3)"},
      {"${srs_encode{k}{a@b}{c}{d}}", NULL, "Too many arguments for 'srs_encode' (max is 3)"}, {"${srs_encode{k}{a@b}{c}", NULL, "missing '}' after 'srs_encode'"},
      {"${if inbound_srs{a}}", NULL, "too few arguments or bracketing error for inbound_srs"},
      {"${authresults{a.b}}", "Authentication-Results: a.b;\n\tiprev=pass (client.example) smtp.remote-ip=192.0.2.9", NULL, true},
      {"${certextract{subject}{$tls_in_peercert}{y}{n}}", "n"}, {"${certextract{subject}{x}}", NULL, "second argument of \"certextract\" must be a certificate variable"},
      {"${certextract{subject}{$home}}", NULL, "\"home\" is not a certificate"});
}

static void test_depth(void **state) {
  char text[8192] = "";
  struct str value;
  for (int i = 0; i < 500; i++)
    memcpy(text + 5 * i, "${lc:", 6);
  assert_int_equal(expand_text(c, str_c(text), &value), OUTCOME_ERROR);
  assert_str(c->error, "expansion is nested too deeply");
  assert_int_equal(c->depth, 0);
}

static void test_outcomes(void **state) {
  struct str value;
  bool truth;
  assert_int_equal(expand_text(c, STR("${if eq{a}{b}{x}fail}"), &value), OUTCOME_FORCED);
  assert_int_equal(expand_text(c, STR("$x"), &value), OUTCOME_ERROR);
  assert_int_equal(expand_text(c, str_tainted(STR("x")), &value), OUTCOME_ERROR);
  assert_true(expand_truth(STR("Yes"), &truth) && truth);
  assert_true(expand_truth(STR(" 0 "), &truth) && !truth);
  assert_false(expand_truth(STR("what"), &truth));
  assert_true(expand_truth_lax(STR("what")));
  struct str error;
  const struct expr *e = expr_compile(a, STR("a\\nb"), &error);
  assert_false(str_is_set(error));
  assert_true(expr_is_constant(e, &value));
  assert_str(value, "a\nb");
  e = expr_compile(a, STR("${foo:x}"), &error);
  assert_str(error, "unknown expansion operator \"foo\"");
}

static void test_lines(void **state) {
  char *out = NULL;
  size_t n = 0;
  char in[] = "XX = two\nset acl_c0 = on\\\n  e\n$acl_c0 XX\nset,t acl_m_t = x\n${expand:$acl_m_t}\n_ACL_MOD_SET _ACL_COND_VERIFY _EXP_ITEM_PERL _EXP_COND_NONE _CRYPTO_HASH_SHA3\n";
  struct expand_test t = {.in = fmemopen(in, sizeof in - 1, "r"), .out = open_memstream(&out, &n)};
  assert_int_equal(expand_test_run(c, &t), 0);
  fclose(t.in);
  fclose(t.out);
  assert_string_equal(out, "> Defined macro 'XX'\n> variable c0 set\n> one two\n> variable m_t set\n"
                           "> Failed: internal expansion of \"x\" failed: attempt to expand tainted string 'x'\n> y y y _EXP_COND_NONE y\n> \n");
  free(out);
}

int main(int argc, char **argv) {
  foreign_main(argc, argv);
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_text), cmocka_unit_test(test_if), cmocka_unit_test(test_lists), cmocka_unit_test(test_fields),
    cmocka_unit_test(test_strings), cmocka_unit_test(test_numbers), cmocka_unit_test(test_digests),
    cmocka_unit_test(test_addresses), cmocka_unit_test(test_charsets), cmocka_unit_test(test_headers),
    cmocka_unit_test(test_in_fiber), cmocka_unit_test(test_srs), cmocka_unit_test(test_depth), cmocka_unit_test(test_outcomes),
    cmocka_unit_test(test_lines),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
