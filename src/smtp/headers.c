/* What reception does to header lines: recognises them, removes what must not
be in transit, adds what a submission lacks, checks From: against the
submitter, rewrites (Exim manual, chapter "Message processing"). */
#include <ctype.h>
#include <string.h>

#include "acl/acl.h"
#include "base/idn.h"
#include "base/pcre.h"
#include "base/time.h"
#include "core/main_options.h"
#include "core/module.h"
#include "expand/expand.h"
#include "log/log.h"
#include "match/match.h"
#include "message/address.h"
#include "message/rewrite.h"
#include "smtp/receive.h"

#define T_RECIPIENTS_MAX 100000

static const struct header_word {
  const char *name;
  char type;
} header_words[] = {
    {"bcc", 'B'}, {"cc", 'C'}, {"date", 'd'}, {"delivery-date", 'D'}, {"envelope-to", 'E'}, {"from", 'F'}, {"message-id", 'I'},
    {"received", 'P'}, {"reply-to", 'R'}, {"return-path", 'X'}, {"sender", 'S'}, {"to", 'T'},
};

static void extract_recipients(struct reception *r, struct header *h) {
  struct str value = header_value(h);
  struct address_walk w = {.text = value};
  while (address_walk_next(&w)) {
    struct str item = str_slice(value, w.from, w.to), error = STR_UNSET;
    struct mail_address address;
    if (r->m->recipients.n >= T_RECIPIENTS_MAX)
      return;
    if (address_parse(r->c->arena, item, address_flags(r->c, ADDRESS_ALLOW_DOMAIN_LITERAL | ADDRESS_ALLOW_UTF8), &address, &error) < 0) {
      struct bad_recipient bad = {str_dup(r->c->arena, item), error};
      vec_push(r->c->arena, &r->bad, bad);
      continue;
    }
    struct recipient rcpt = {.address = receive_qualify(r->c, r->m->arena, address.address, false), .parent = -1,
      .given = address.domain.len ? STR_UNSET : str_tainted(str_dup(r->m->arena, address.address))};
    rcpt.address.taint = STR_TAINTED;
    r->m->smtputf8 |= !str_is_ascii(rcpt.address);
    bool known = false; /* addresses given as arguments are not to get the message, if the site wants it so */
    for (size_t i = 0; i < r->p.argument_recipients_n && !known; i++)
      known = str_eq(r->p.argument_recipients[i], rcpt.address);
    if (!known)
      vec_push(r->m->arena, &r->m->recipients, rcpt);
  }
  r->extracted = true;
}

void receive_classify(struct reception *r, struct header *h) {
  const struct main_options *o = main_options(r->c->config);
  struct str name = str_slice(h->text, 0, h->name_len);
  bool resent = str_istarts(name, STR("resent-"));
  if (resent)
    name = str_from(name, 7);
  char type = ' ';
  for (size_t i = 0; i < sizeof header_words / sizeof *header_words; i++)
    if (str_ieq_c(name, header_words[i].name))
      type = header_words[i].type;
  if (resent && (type == 'P' || type == 'D' || type == 'E' || type == 'X'))
    type = ' ';
  if (resent)
    r->resent = true;
  switch (type) {
    case 'd':
      *(resent ? &r->have_resent_date : &r->have_date) = true;
      type = ' ';
      break;
    case 'D': type = o->delivery_date_remove ? '*' : ' '; break;
    case 'E': type = o->envelope_to_remove ? '*' : ' '; break;
    case 'X': type = o->return_path_remove ? '*' : ' '; break;
    case 'P': r->m->received_count++; break;
    default: break;
  }
  h->type = type;
}

static bool is_resent(const struct header *h) { return str_istarts(h->text, STR("resent-")); }

/* First line of that type, of the resent set or not. */
static struct header *find_type(const struct message *m, char type, bool resent) {
  for (struct header *h = m->headers; h; h = h->next)
    if (h->type == type && is_resent(h) == resent)
      return h;
  return NULL;
}

static void add_header(struct reception *r, char type, struct str text) { message_add_header(r->m, type, text); }

/* Fields of a message that is sent again stand together at its top (RFC 5322, 3.6.6). */
static void add_trace_header(struct reception *r, char type, struct str text) {
  if (r->resent)
    message_insert_header(r->m, NULL, type, text);
  else
    add_header(r, type, text);
}

/* ---- the submitter's address ---- */

/* A full name as an RFC 5322 phrase. */
static struct str phrase(struct arena *a, struct str name) {
  bool quote = false;
  for (uint32_t i = 0; i < name.len; i++)
    if (!isalnum((unsigned char)name.p[i]) && !strchr(" \t!#$%&'*+-/=?^_`{|}~", name.p[i]) && (unsigned char)name.p[i] < 128)
      quote = true;
  struct buf b;
  buf_init(&b, a, BUF_MAX_LINE);
  if (quote)
    buf_add_byte(&b, '"');
  for (uint32_t i = 0; i < name.len; i++) {
    if (quote && (name.p[i] == '"' || name.p[i] == '\\'))
      buf_add_byte(&b, '\\');
    buf_add_byte(&b, name.p[i] == '\n' || name.p[i] == '\r' ? ' ' : name.p[i]);
  }
  if (quote)
    buf_add_byte(&b, '"');
  return buf_str(&b);
}

/* The account's full name as gecos_pattern and gecos_name make it; "&" stands for the login with a capital. */
static struct str account_name(struct reception *r) {
  struct ctx *c = r->c;
  const struct main_options *o = main_options(c->config);
  struct str gecos = r->p.submitter->name, login = r->p.submitter->login, groups[CAPTURES_MAX], name;
  struct buf b;
  if (!str_is_set(gecos))
    return STR_EMPTY;
  if (str_is_set(o->gecos_pattern) && str_is_set(o->gecos_name.text)) {
    int n = pcre_match_text(c->arena, o->gecos_pattern, gecos, groups, CAPTURES_MAX);
    if (n > 0) {
      struct expand_vars saved = ctx_save(c);
      captures_set(&c->expand, groups, n);
      int rc = expand_option(c, &o->gecos_name, &name);
      ctx_restore(c, &saved);
      if (rc == 0)
        gecos = name;
      else
        acl_log(c, LOG_MAIN | LOG_PANIC, "failed to expand gecos_name string \"%.*s\": %.*s", STRF(o->gecos_name.text), STRF(c->error));
    }
  }
  buf_init(&b, c->arena, BUF_MAX_LINE);
  for (uint32_t i = 0; i < gecos.len; i++) {
    if (gecos.p[i] != '&') {
      buf_add_byte(&b, gecos.p[i]);
    } else if (login.len > 0) {
      buf_add_byte(&b, (char)toupper((unsigned char)login.p[0]));
      buf_add(&b, str_from(login, 1));
    }
  }
  return buf_str(&b);
}

static struct str full_name(struct reception *r) {
  if (str_is_set(r->p.full_name))
    return r->p.full_name;
  return r->p.submitter ? account_name(r) : STR_EMPTY;
}

static struct str login_address(struct reception *r) {
  return receive_login_address(r->c, r->m->arena, r->p.submitter ? r->p.submitter->login : STR("unknown"));
}

/* The address of an authenticated submission: unset when there is none to make. */
static struct str submission_address(struct reception *r) {
  const struct acl_message *am = acl_message(r->c);
  struct str id = r->c->client->authenticated_id;
  if (!str_is_set(id) || id.len == 0)
    return STR_UNSET;
  struct str domain = str_is_set(am->submission_domain) ? am->submission_domain : main_options(r->c->config)->qualify_domain;
  struct str s = domain.len == 0 ? str_dup(r->m->arena, id)
                                 : str_printf(r->m->arena, "%.*s@%.*s", STRF(address_quote_local_part(r->c->arena, id)), STRF(domain));
  s.taint = STR_TAINTED;
  return s;
}

/* "Name <address>" or the address alone. */
static struct str with_name(struct reception *r, struct str name, struct str address) {
  struct str s = name.len == 0 ? address
                               : str_printf(r->m->arena, "%.*s <%.*s>", STRF(phrase(r->c->arena, name)), STRF(address));
  s.taint = STR_TAINTED;
  return s;
}

/* ---- fix-ups ---- */

static void add_message_id(struct reception *r) {
  struct ctx *c = r->c;
  const struct main_options *o = main_options(c->config);
  struct str domain = o->primary_hostname, text = STR_EMPTY, value;
  int rc = expand_option(c, &o->message_id_header_domain, &value);
  if (rc == 0 && str_is_set(value) && value.len > 0)
    domain = value;
  else if (rc && rc != OUTCOME_FORCED)
    acl_log(c, LOG_MAIN | LOG_PANIC, "expansion of \"%.*s\" (message_id_header_domain) failed: %.*s",
        STRF(o->message_id_header_domain.text), STRF(c->error));
  rc = expand_option(c, &o->message_id_header_text, &value);
  if (rc == 0 && str_is_set(value) && value.len > 0) {
    char *p = str_dup_c(c->arena, value);
    for (char *q = p; *q; q++)
      if ((unsigned char)*q <= 32 || (unsigned char)*q >= 127 || strchr("()<>@,;:\\\"[]", *q))
        *q = '-';
    text = str_printf(c->arena, ".%s", p);
  } else if (rc && rc != OUTCOME_FORCED) {
    acl_log(c, LOG_MAIN | LOG_PANIC, "expansion of \"%.*s\" (message_id_header_text) failed: %.*s",
        STRF(o->message_id_header_text.text), STRF(c->error));
  }
  struct str line = str_printf(r->m->arena, "%sMessage-Id: <E%s%.*s@%.*s>\n", r->resent ? "Resent-" : "", r->m->id, STRF(text),
      STRF(domain));
  add_trace_header(r, 'I', line);
}

/* The submitter's name goes with the address unless a trusted caller gave the sender himself. */
static bool name_wanted(const struct reception *r) {
  return !r->p.submitter || !r->p.submitter->trusted || str_is_set(r->p.full_name) || (!r->p.smtp && !r->p.sender_forced);
}

static void add_from(struct reception *r, bool submission) {
  const struct acl_message *am = acl_message(r->c);
  struct str address = r->m->reverse_path, name = STR_EMPTY;
  if (r->p.local)
    name = name_wanted(r) ? full_name(r) : STR_EMPTY;
  else if (str_is_set(am->submission_name))
    name = am->submission_name;
  if (address.len == 0) {
    if (r->m->local_error_message || (r->p.local && !r->p.smtp && !r->p.sender_forced))
      address = login_address(r);
    else
      address = submission ? submission_address(r) : STR_UNSET;
  }
  if (!str_is_set(address) || address.len == 0)
    return;
  struct str text = with_name(r, name, address);
  add_header(r, 'F', str_printf(r->m->arena, "%sFrom: %.*s\n", r->resent ? "Resent-" : "", STRF(text)));
}

/* "From: login" alone becomes the constructed address. */
static void complete_login_from(struct reception *r) {
  if (!r->p.submitter || r->p.smtp)
    return;
  for (struct header *h = r->m->headers; h; h = h->next) {
    if (h->type != 'F' || !str_ieq(header_value(h), r->p.submitter->login))
      continue;
    struct str text = with_name(r, full_name(r), login_address(r));
    text = str_printf(r->m->arena, "%.*s: %.*s\n", (int)h->name_len, h->text.p, STRF(text));
    text.taint = STR_TAINTED;
    h->type = '*';
    add_header(r, 'F', text);
    return;
  }
}

static struct str strip_affix(struct str local, struct str affixes, bool suffix, struct arena *a) {
  struct list_iter i;
  struct str affix;
  list_iter_init(&i, a, affixes);
  while (list_next(&i, &affix)) {
    bool wild = affix.len > 0 && affix.p[suffix ? affix.len - 1 : 0] == '*';
    struct str fixed = wild ? (suffix ? str_slice(affix, 0, affix.len - 1) : str_from(affix, 1)) : affix;
    if (fixed.len == 0)
      continue;
    if (!wild) {
      if (suffix ? str_iends(local, fixed) : str_istarts(local, fixed))
        return suffix ? str_slice(local, 0, local.len - fixed.len) : str_from(local, fixed.len);
      continue;
    }
    ptrdiff_t at = str_ifind(local, fixed);
    if (at >= 0)
      return suffix ? str_slice(local, 0, (size_t)at) : str_from(local, (size_t)at + fixed.len);
  }
  return local;
}

/* Does the From: line hold just the address given (affixes of the local part aside)? */
static bool from_is(struct reception *r, const struct header *from, struct str expected) {
  const struct main_options *o = main_options(r->c->config);
  struct mail_address address;
  struct str error, value = header_value(from), local, domain, want_local, want_domain;
  if (address_parse(r->c->arena, value, address_flags(r->c, ADDRESS_ALLOW_DOMAIN_LITERAL), &address, &error) < 0)
    return false;
  struct str full = receive_qualify(r->c, r->c->arena, address.address, true);
  address_split(full, &local, &domain);
  address_split(expected, &want_local, &want_domain);
  if (!str_ieq(domain, want_domain))
    return false;
  if (str_ieq(local, want_local))
    return true;
  if (str_is_set(o->local_from_prefix))
    local = strip_affix(local, o->local_from_prefix, false, r->c->arena);
  if (str_is_set(o->local_from_suffix))
    local = strip_affix(local, o->local_from_suffix, true, r->c->arena);
  return str_ieq(local, want_local);
}

static void remove_type(struct reception *r, char type) {
  for (struct header *h = r->m->headers; h; h = h->next)
    if (h->type == type)
      h->type = '*';
}

/* Local submission by an untrusted user, or submission mode: From: must name the sender, else Sender: does. */
static void check_sender(struct reception *r, bool submission) {
  const struct main_options *o = main_options(r->c->config);
  const struct acl_message *am = acl_message(r->c);
  bool trusted = r->p.submitter && r->p.submitter->trusted;
  bool local = r->p.local && !trusted && !am->suppress_local_fixups;
  if (!(local || (submission && !am->sender_retain)))
    return;
  if (submission || !o->local_sender_retain)
    remove_type(r, 'S');
  if (!submission && !o->local_from_check)
    return;
  struct str expected = submission ? submission_address(r) : login_address(r);
  if (!str_is_set(expected))
    return;
  struct header *from = find_type(r->m, 'F', r->resent);
  if (!from || !from_is(r, from, expected)) {
    struct str name = submission ? (str_is_set(am->submission_name) ? am->submission_name : STR_EMPTY) : full_name(r);
    struct str text = with_name(r, name, expected);
    if (from)
      add_header(r, 'S', str_printf(r->m->arena, "%sSender: %.*s\n", r->resent ? "Resent-" : "", STRF(text)));
  }
  if (submission && r->m->reverse_path.len > 0) {
    r->sender_given = r->m->reverse_path;
    if (log_selected(LOGSEL_address_rewrite) && !str_eq(r->m->reverse_path, expected))
      acl_log(r->c, LOG_MAIN, "\"%.*s\" from env-from rewritten as \"%.*s\" by submission mode",
          STRF(log_printable(r->c->arena, r->m->reverse_path)), STRF(log_printable(r->c->arena, expected)));
    r->m->reverse_path = expected;
  }
}

static void extract_all(struct reception *r) {
  static const char types[] = "TCB";
  for (struct header *h = r->m->headers; h; h = h->next)
    if (h->type && strchr(types, h->type) && is_resent(h) == r->resent)
      extract_recipients(r, h);
  for (struct header *h = r->m->headers; h; h = h->next)
    if (h->type == 'B' && is_resent(h) == r->resent)
      h->type = '*';
}

static void keep_message_id(struct reception *r) {
  const struct header *h = find_type(r->m, 'I', r->resent);
  struct mail_address id;
  struct str error;
  r->have_message_id = h != NULL;
  if (!h || address_parse(r->c->arena, header_value(h), ADDRESS_ALLOW_DOMAIN_LITERAL, &id, &error))
    return;
  r->message_id_value = str_dup(r->m->arena, id.address);
  r->message_id_value.taint = STR_TAINTED;
}

int receive_fix_headers(struct reception *r) {
  struct message *m = r->m;
  const struct acl_message *am = acl_message(r->c);
  bool submission = am && am->submission;
  bool fix = (r->p.local && !am->suppress_local_fixups) || submission;
  if (r->p.extract_recipients)
    extract_all(r);
  if (r->p.local)
    complete_login_from(r);
  m->submission = submission;
  m->local_submission = r->p.local;
  keep_message_id(r);
  if (fix && !find_type(m, 'I', r->resent) && (r->resent || !find_type(m, 'I', true)))
    add_message_id(r);
  /* Qualification and rewriting of envelope and header, before From: is compared with the sender. */
  if (fix && !find_type(m, 'F', r->resent))
    add_from(r, submission);
  check_sender(r, submission);
  rewrite_received(r->c, m);
  if (fix && !(r->resent ? r->have_resent_date : r->have_date))
    add_trace_header(r, ' ', str_printf(m->arena, "%sDate: %.*s\n", r->resent ? "Resent-" : "",
        STRF(time_rfc2822(r->c->arena, m->received_time.tv_sec))));
  return receive_add_received(r);
}

/* ---- Received: ---- */

static struct str received_text(struct reception *r, time_t t) {
  struct str text, date = time_rfc2822(r->c->arena, t);
  if (expand_option(r->c, &main_options(r->c->config)->received_header_text, &text) != 0) {
    r->c->error = str_printf(r->c->arena, "Expansion of \"%.*s\" (received_header_text) failed: %.*s",
        STRF(main_options(r->c->config)->received_header_text.text), STRF(r->c->error));
    return STR_UNSET;
  }
  if (!str_is_set(text) || text.len == 0)
    return STR_EMPTY;
  return str_printf(r->m->arena, "%.*s;\n\t%.*s\n", STRF(text), STRF(date));
}

int receive_add_received(struct reception *r) {
  struct str text = received_text(r, r->m->received_time.tv_sec);
  if (!str_is_set(text))
    return OUTCOME_ERROR;
  if (text.len == 0)
    return 0;
  r->received = message_prepend_header(r->m, 'P', text);
  r->m->received_count++;
  return 0;
}

void receive_update_received(struct reception *r) {
  if (!r->received)
    return;
  /* Only the time stamp changes: what stands before the last semicolon stays as the ACLs saw it. */
  ptrdiff_t semicolon = str_rfind_byte(r->received->text, ';');
  if (semicolon < 0)
    return;
  struct str date = time_rfc2822(r->c->arena, time(NULL));
  r->received->text = str_printf(r->m->arena, "%.*s;\n\t%.*s\n", (int)semicolon, r->received->text.p, STRF(date));
}
