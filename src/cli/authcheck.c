/* `martlet authcheck [--ip A] [--helo H] [--sender S] [--resolver A[:PORT]] [--json] MESSAGE`: the message as if just received, and what
SPF, DKIM, DMARC and ARC say of it. No ACL runs, nothing is kept. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "acl/acl.h"
#include "base/buf.h"
#include "cli/process.h"
#include "core/main_options.h"
#include "core/module.h"
#include "core/session.h"
#include "dns/dns.h"
#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/results.h"
#include "message/message.h"

#define MESSAGE_MAX (256u << 20)

struct authcheck {
  struct str ip, helo, sender, resolver, file;
  bool json;
};

static int usage(const char *what, struct str word) {
  fprintf(stderr, "martlet: authcheck: %s%.*s\n"
                  "usage: martlet authcheck [--ip ADDRESS] [--helo NAME] [--sender ADDRESS] [--resolver ADDRESS[:PORT]] [--json] MESSAGE\n",
      what, STRF(word));
  return 1;
}

static int parse(const struct cli *cli, struct authcheck *o) {
  *o = (struct authcheck){.ip = STR_UNSET, .helo = STR_EMPTY, .sender = STR_EMPTY, .resolver = STR_UNSET, .file = STR_UNSET};
  const struct {
    const char *name;
    struct str *to;
  } words[] = {{"--ip", &o->ip}, {"--helo", &o->helo}, {"--sender", &o->sender}, {"--resolver", &o->resolver}};
  for (size_t i = 0; i < cli->args.n; i++) {
    struct str word = cli->args.v[i];
    struct str *to = NULL;
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
      if (str_eq_c(word, words[k].name))
        to = words[k].to;
    if (to != NULL && i + 1 < cli->args.n)
      *to = cli->args.v[++i];
    else if (to != NULL)
      return usage("a value is missing behind ", word);
    else if (str_eq_c(word, "--json"))
      o->json = true;
    else if (word.len > 0 && word.p[0] == '-' && word.len > 1)
      return usage("unknown option ", word);
    else if (str_is_set(o->file))
      return usage("one message only: ", word);
    else
      o->file = word;
  }
  return str_is_set(o->file) ? 0 : usage("which message?", STR_EMPTY);
}

/* The whole message with LF line ends. */
static bool read_message(struct str name, struct message *m, struct str *ret) {
  FILE *f = str_eq_c(name, "-") ? stdin : fopen(str_dup_c(m->arena, name), "re");
  char piece[16384];
  size_t n;
  struct buf b;
  if (f == NULL) {
    fprintf(stderr, "martlet: failed to open %.*s: %s\n", STRF(name), strerror(errno));
    return false;
  }
  buf_init(&b, m->arena, MESSAGE_MAX);
  while ((n = fread(piece, 1, sizeof piece, f)) > 0)
    for (size_t i = 0; i < n; i++) {
      if (piece[i] == '\n' && b.len > 0 && b.p[b.len - 1] == '\r')
        buf_truncate(&b, b.len - 1);
      buf_add_byte(&b, piece[i]);
    }
  bool bad = ferror(f) || b.overflow;
  if (f != stdin)
    fclose(f);
  if (bad)
    fprintf(stderr, "martlet: %.*s cannot be read, or is too big\n", STRF(name));
  *ret = str_tainted(buf_str(&b));
  return !bad;
}

static bool set_client(struct ctx *c, const struct authcheck *o) {
  struct client *cl = c->client;
  cl->helo_name = str_tainted(o->helo);
  if (!str_is_set(o->ip))
    return true;
  if (!ip_parse(o->ip, &cl->ip)) {
    (void)usage("not an IP address: ", o->ip);
    return false;
  }
  cl->host_address = ip_text(c->arena, &cl->ip);
  return true;
}

static bool set_resolver(const struct authcheck *o) {
  static char server[80];
  struct ip_addr ip;
  if (!str_is_set(o->resolver))
    return true;
  struct str rest = o->resolver, host = o->resolver, port = STR("53");
  uint64_t n;
  if (!ip_parse(host, &ip)) {
    ptrdiff_t colon = str_rfind_byte(rest, ':');
    host = colon > 0 ? str_slice(rest, 0, (size_t)colon) : rest;
    port = colon > 0 ? str_from(rest, (size_t)colon + 1) : port;
    if (host.len > 2 && host.p[0] == '[' && host.p[host.len - 1] == ']')
      host = str_slice(host, 1, host.len - 1);
  }
  if (!ip_parse(host, &ip) || !str_to_u64(port, &n) || n == 0 || n > 65535) {
    (void)usage("not a name server's address: ", o->resolver);
    return false;
  }
  snprintf(server, sizeof server, host.len && str_find_byte(host, ':') >= 0 ? "[%.*s]:%d" : "%.*s:%d", STRF(host), (int)n);
  dns_use_server(server);
  return true;
}

/* What reception does with a message, as far as modules look at it. [suspends] */
static bool receive(struct ctx *c, struct str text) {
  struct message *m = c->message;
  size_t at = process_read_header(m, text);
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.header_end && modules[i]->hooks.header_end(c) != OUTCOME_OK)
      return false;
  for (size_t from = at; from < text.len; from += 65536)
    for (size_t i = 0; modules[i]; i++)
      if (modules[i]->hooks.body_chunk)
        modules[i]->hooks.body_chunk(c, str_slice(text, from, from + 65536));
  for (size_t i = 0; modules[i]; i++)
    if (modules[i]->hooks.message_end && modules[i]->hooks.message_end(c) != OUTCOME_OK)
      return false;
  return true;
}

/* The conditions that make a module evaluate what it otherwise leaves. [suspends] */
static void evaluate(struct ctx *c) {
  static const char *const names[] = {"spf", "dmarc_status"};
  for (size_t i = 0; modules[i]; i++) {
    for (const struct acl_verify_def *d = modules[i]->acl_verifies; d && d->name; d++)
      if (strcmp(d->name, "arc") == 0)
        (void)d->eval(c, STR("*"));
    for (const struct acl_condition_def *d = modules[i]->acl_conditions; d && d->name; d++)
      for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        if (strcmp(d->name, names[k]) == 0 && d->eval)
          (void)d->eval(c, NULL, STR("*"));
  }
}

/* ---- output ---- */

static struct str value(struct ctx *c, const char *text) {
  struct str s = STR_EMPTY;
  return expand_text(c, str_c(text), &s) == 0 ? s : STR_EMPTY;
}

static void print_string(struct str s) {
  putchar('"');
  for (size_t i = 0; i < s.len; i++) {
    unsigned char ch = (unsigned char)s.p[i];
    if (ch == '"' || ch == '\\')
      printf("\\%c", ch);
    else if (ch < 32 || ch >= 127)
      printf("\\u%04x", ch); /* bytes, as Latin-1 */
    else
      putchar(ch);
  }
  putchar('"');
}

static void member(const char *before, const char *name, struct str s) {
  printf("%s\"%s\": ", before, name);
  print_string(s);
}

struct printer {
  struct ctx *c;
  bool json;
  int n;
};

static void print_signature(void *arg, struct str domain, struct str selector, struct str status) {
  struct printer *p = arg;
  if (p->json) {
    member(p->n ? ", {" : "{", "domain", domain);
    member(", ", "selector", selector);
    member(", ", "result", status);
    putchar('}');
  } else {
    printf("DKIM   %.*s d=%.*s s=%.*s\n", STRF(status), STRF(log_printable(p->c->arena, domain)), STRF(log_printable(p->c->arena, selector)));
  }
  p->n++;
}

static void print_json(struct ctx *c, struct str header) {
  struct printer p = {c, true, 0};
  struct str status = STR("none"), text;
  member("{", "spf", value(c, "$spf_result"));
  member(", ", "spf_comment", value(c, "$spf_header_comment"));
  member(", ", "spf_explanation", value(c, "$spf_smtp_comment"));
  printf(", \"dkim\": [");
  dkim_message_results(c, print_signature, &p);
  (void)domainkeys_message_result(c, &status, &text);
  member("], ", "domainkeys", status);
  member(", ", "dmarc", value(c, "$dmarc_status"));
  member(", ", "dmarc_domain", value(c, "$dmarc_used_domain"));
  member(", ", "dmarc_policy", value(c, "$dmarc_domain_policy"));
  member(", ", "dmarc_alignment_spf", value(c, "$dmarc_alignment_spf"));
  member(", ", "dmarc_alignment_dkim", value(c, "$dmarc_alignment_dkim"));
  member(", ", "arc", value(c, "$arc_state"));
  member(", ", "arc_reason", value(c, "$arc_state_reason"));
  member(", ", "arc_domains", value(c, "$arc_domains"));
  member(", ", "arc_oldest_pass", value(c, "$arc_oldest_pass"));
  member(", ", "authentication_results", header);
  puts("}");
}

static void print_text(struct ctx *c, struct str header) {
  struct printer p = {c, false, 0};
  struct str status, text;
  struct str spf = value(c, "$spf_result${if def:spf_header_comment{ ($spf_header_comment)}}");
  printf("SPF    %.*s\n", STRF(log_printable(c->arena, spf)));
  dkim_message_results(c, print_signature, &p);
  if (p.n == 0)
    puts("DKIM   none");
  if (domainkeys_message_result(c, &status, &text))
    printf("DK     %.*s\n", STRF(log_printable(c->arena, text)));
  struct str dmarc = value(c, "$dmarc_status${if def:dmarc_used_domain{ (record of $dmarc_used_domain, policy $dmarc_domain_policy, "
                              "aligned: SPF $dmarc_alignment_spf, DKIM $dmarc_alignment_dkim)}}");
  printf("DMARC  %.*s\n", STRF(log_printable(c->arena, dmarc)));
  struct str arc = value(c, "$arc_state${if def:arc_state_reason{ ($arc_state_reason)}}${if def:arc_domains{ domains $arc_domains, "
                            "oldest pass $arc_oldest_pass}}");
  printf("ARC    %.*s\n\n%.*s\n", STRF(log_printable(c->arena, arc)), STRF(header));
}

static int run(struct process *p, const struct authcheck *o) {
  struct ctx *c = p->ctx;
  struct str text;
  struct session session = {.arena = p->arena, .kind = SESSION_TEST};
  c->session = &session;
  c->message->reverse_path = str_tainted(o->sender);
  message_make_id(c->message, (int)main_options(p->config)->localhost_number_value);
  if (!set_client(c, o) || !set_resolver(o) || !read_message(o->file, c->message, &text))
    return 1;
  if (str_ifind(text, STR("DomainKey-Signature:")) >= 0)
    domainkeys_want(c->message);
  if (!receive(c, text)) {
    fprintf(stderr, "martlet: the message cannot be evaluated\n");
    return 1;
  }
  evaluate(c);
  struct str header = value(c, "${authresults{$primary_hostname}}");
  if (o->json)
    print_json(c, header);
  else
    print_text(c, header);
  return 0;
}

int mode_authcheck(struct process *p) {
  struct authcheck o;
  for (size_t i = 0; i < p->cli.args.n; i++)
    p->cli.args.v[i] = str_untainted(p->cli.args.v[i]); /* the caller's own words */
  if (parse(&p->cli, &o))
    return 1;
  if (!process_become_caller(p))
    return 1;
  p->ctx->is_test = true;
  log_set_echo(LOG_ECHO_TESTING);
  p->ctx->message = message_new("authentication check");
  *p->ctx->client = (struct client){0};
  int status = run(p, &o);
  message_free(p->ctx->message);
  p->ctx->message = NULL;
  p->ctx->session = NULL;
  return status;
}
