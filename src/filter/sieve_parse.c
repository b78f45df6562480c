/* Commands of Sieve scripts: reading them. What is written up to the first
error is kept: Exim obeys it, and a `stop` that is reached before the error
means that there is none (Exim's Sieve notes, "Sieve Syntax And Semantics"). */

#include "base/ascii.h"
#include "filter/sieve.h"
#include "message/address.h"

static bool commands(struct sieve_parser *p, bool block, struct sieve_command **ret);

static bool need_semicolon(struct sieve_parser *p) {
  int rc = sieve_take_byte(p, ';');
  return rc ? rc > 0 : sieve_fail(p, "missing semicolon");
}

/* --- require --- */

static const struct {
  const char *name;
  unsigned extension;
} capabilities[] = {
    {"comparator-en;ascii-casemap", 0}, {"comparator-i;ascii-casemap", 0}, {"comparator-i;ascii-numeric", SIEVE_NUMERIC},
    {"comparator-i;octet", 0}, {"copy", SIEVE_COPY}, {"encoded-character", SIEVE_ENCODED_CHARACTER}, {"enotify", SIEVE_ENOTIFY},
    {"envelope", SIEVE_ENVELOPE}, {"fileinto", SIEVE_FILEINTO}, {"subaddress", SIEVE_SUBADDRESS}, {"vacation", SIEVE_VACATION},
};

const char *const filter_sieve_extensions[] = {"comparator-i;ascii-numeric", "copy", "encoded-character", "enotify", "envelope", "fileinto",
    "subaddress", "vacation", NULL};

static bool require_one(struct sieve_parser *p, struct str name) {
  for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++) {
    if (!str_eq_c(name, capabilities[i].name))
      continue;
    if (capabilities[i].extension == SIEVE_ENOTIFY && !str_is_set(p->rules->sieve_enotify_owner))
      return sieve_fail(p, "enotify disabled");
    if (capabilities[i].extension == SIEVE_VACATION && !p->rules->testing && !str_is_set(p->rules->sieve_vacation_directory))
      return sieve_fail(p, "vacation disabled");
    p->required |= capabilities[i].extension;
    return true;
  }
  return sieve_fail(p, "unknown capability");
}

static bool requirements(struct sieve_parser *p) {
  struct sieve_strings names;
  int rc;
  while ((rc = sieve_take_word(p, "require")) > 0) {
    if (!sieve_need_list(p, "capability string list expected", &names))
      return false;
    for (size_t i = 0; i < names.n; i++)
      if (!require_one(p, names.v[i]))
        return false;
    if (!need_semicolon(p))
      return false;
  }
  return !rc;
}

/* --- actions --- */

static bool take_copy(struct sieve_parser *p, struct sieve_command *cmd) {
  int rc;
  while ((rc = sieve_take_word(p, ":copy")) > 0) {
    if (!sieve_need(p, SIEVE_COPY, "copy"))
      return false;
    cmd->copy = true;
  }
  return !rc;
}

/* What Exim delivers to although no RFC knows it: underscores in domains, and the like. */
static bool plain_address(struct str s) {
  ptrdiff_t at = str_rfind_byte(s, '@');
  for (uint32_t i = 0; i < s.len; i++)
    if ((unsigned char)s.p[i] <= 32 || s.p[i] == 127 || strchr("()<>[]:;,\\\"", s.p[i]) || (s.p[i] == '@' && (ptrdiff_t)i != at))
      return false;
  return at > 0 && (uint32_t)at + 1 < s.len && s.len <= ADDRESS_MAX;
}

static bool redirect(struct sieve_parser *p, struct sieve_command *cmd) {
  struct mail_address m;
  struct str error;
  if (!take_copy(p, cmd) || !sieve_need_string(p, "missing redirect recipient string", &cmd->text))
    return false;
  if (str_find_byte(cmd->text, '@') < 0)
    return sieve_fail(p, "unqualified recipient address");
  cmd->text = str_trim(cmd->text);
  if (plain_address(cmd->text))
    return true;
  if (address_parse(p->arena, cmd->text, 0, &m, &error) || !m.domain.len)
    return sieve_fail(p, "malformed recipient address");
  cmd->text = m.address;
  return true;
}

/* A folder that stays where the transport puts folders. */
static bool valid_folder(struct str name) {
  for (uint32_t i = 0; i < name.len; i++)
    if (ascii_is_cntrl(name.p[i]))
      return false;
  for (struct str rest = name, part; str_is_set(rest);) {
    part = str_cut(&rest, '/');
    if (str_eq_c(part, ".."))
      return false;
  }
  return name.len > 0;
}

static bool fileinto(struct sieve_parser *p, struct sieve_command *cmd) {
  if (!sieve_need(p, SIEVE_FILEINTO, "fileinto") || !take_copy(p, cmd) ||
      !sieve_need_string(p, "missing fileinto folder string", &cmd->text))
    return false;
  return valid_folder(cmd->text) ? true : sieve_fail(p, "invalid folder");
}

/* --- vacation --- */

static bool check_from(struct sieve_parser *p, struct str text) {
  struct mail_address m;
  struct str error;
  if (!str_trim(text).len)
    return sieve_fail(p, "empty address");
  if (address_parse(p->arena, text, 0, &m, &error))
    return sieve_fail(p, "malformed address \"%.*s\" (%.*s)", STRF(text), STRF(error));
  for (uint32_t i = 0; i < text.len; i++)
    if (ascii_is_cntrl(text.p[i]))
      return sieve_fail(p, "malformed address \"%.*s\"", STRF(text));
  return true;
}

static int take_string_tag(struct sieve_parser *p, const char *tag, const char *missing, struct str *ret) {
  int rc = sieve_take_word(p, tag);
  if (rc <= 0)
    return rc;
  return sieve_need_string(p, missing, ret) ? 1 : -1;
}

static int take_days(struct sieve_parser *p, struct sieve_vacation *v) {
  uint64_t days;
  int rc = sieve_take_word(p, ":days");
  if (rc <= 0)
    return rc;
  if (!sieve_take_number(p, &days))
    return -1;
  v->days = days < 1 ? 1 : days > SIEVE_VACATION_DAYS_MAX ? SIEVE_VACATION_DAYS_MAX : (int64_t)days;
  return 1;
}

static int take_vacation_tag(struct sieve_parser *p, struct sieve_vacation *v) {
  int rc = take_days(p, v);
  if (!rc)
    rc = take_string_tag(p, ":subject", "subject string expected", &v->subject);
  if (!rc && (rc = take_string_tag(p, ":from", "from string expected", &v->from)) > 0 && !check_from(p, v->from))
    rc = -1;
  if (!rc)
    rc = take_string_tag(p, ":handle", "handle string expected", &v->handle);
  if (!rc && (rc = sieve_take_word(p, ":mime")) > 0)
    v->mime = true;
  if (!rc && (rc = sieve_take_word(p, ":addresses")) > 0 && !sieve_need_list(p, "addresses string list expected", &v->addresses))
    rc = -1;
  return rc;
}

/* The lines in front of the empty one become header lines of the answer. */
static bool check_mime(struct sieve_parser *p, struct str reason) {
  bool head = true;
  for (uint32_t i = 0; i < reason.len; i++)
    if ((unsigned char)reason.p[i] >= 128)
      return sieve_fail(p, "MIME reason string contains 8bit text");
  for (struct str rest = reason, line; head && str_is_set(rest);) {
    line = str_cut(&rest, '\n');
    head = line.len > 0;
    ptrdiff_t colon = str_find_byte(line, ':'), blank = str_find_byte(line, ' ');
    bool folded = head && (line.p[0] == ' ' || line.p[0] == '\t') && line.p != reason.p;
    if (head && !folded && (colon < 1 || (blank >= 0 && blank < colon)))
      return sieve_fail(p, "MIME reason string has a malformed header");
  }
  return true;
}

static bool vacation(struct sieve_parser *p, struct sieve_command *cmd) {
  struct sieve_vacation *v = arena_new_of(p->arena, struct sieve_vacation);
  int rc;
  *v = (struct sieve_vacation){.days = SIEVE_VACATION_DAYS, .subject = STR_UNSET, .from = STR_UNSET, .handle = STR_UNSET};
  cmd->vacation = v;
  if (!sieve_need(p, SIEVE_VACATION, "vacation"))
    return false;
  while ((rc = take_vacation_tag(p, v)) > 0)
    continue;
  return !rc && sieve_need_string(p, "missing reason string", &cmd->text) && (!v->mime || check_mime(p, cmd->text));
}

/* --- notify --- */

static int take_importance(struct sieve_parser *p, struct sieve_notify *n) {
  struct str level;
  int rc = take_string_tag(p, ":importance", "importance string expected", &level);
  if (rc > 0 && (level.len != 1 || level.p[0] < '1' || level.p[0] > '3'))
    return sieve_error(p, "invalid importance");
  if (rc > 0)
    n->importance = level.p[0];
  return rc;
}

static int take_notify_tag(struct sieve_parser *p, struct sieve_notify *n) {
  struct sieve_strings options;
  int rc = take_string_tag(p, ":from", "from string expected", &n->from);
  if (rc)
    return rc > 0 && !check_from(p, n->from) ? -1 : rc;
  if (!(rc = take_importance(p, n)))
    rc = take_string_tag(p, ":message", "message string expected", &n->message);
  /* There are no options for mailto. */
  if (!rc && (rc = sieve_take_word(p, ":options")) > 0 && !sieve_need_list(p, "options string list expected", &options))
    rc = -1;
  return rc;
}

static bool notify(struct sieve_parser *p, struct sieve_command *cmd) {
  struct sieve_notify *n = arena_new_of(p->arena, struct sieve_notify);
  int rc;
  *n = (struct sieve_notify){.from = STR_UNSET, .message = STR_UNSET, .importance = '2'};
  cmd->notify = n;
  if (!sieve_need(p, SIEVE_ENOTIFY, "enotify"))
    return false;
  while ((rc = take_notify_tag(p, n)) > 0)
    continue;
  if (rc || !sieve_need_string(p, "missing method string", &cmd->text))
    return false;
  const char *why = sieve_mailto(p->arena, cmd->text, n);
  return why ? sieve_fail(p, "%s", why) : true;
}

/* --- if --- */

static bool block(struct sieve_parser *p, struct sieve_command **ret) {
  int rc = sieve_take_byte(p, '{');
  if (rc <= 0)
    return rc < 0 ? false : sieve_fail(p, "missing block");
  if (++p->depth > FILTER_DEPTH_MAX)
    return sieve_fail(p, "tests and blocks are nested too deeply");
  if (!commands(p, true, ret))
    return false;
  p->depth--;
  rc = sieve_take_byte(p, '}');
  return rc ? rc > 0 : sieve_fail(p, "expecting command or closing brace");
}

/* elsif is an if in the other's `otherwise`; a row of them is no deeper than one. */
static bool if_command(struct sieve_parser *p, struct sieve_command *cmd) {
  for (int rc;;) {
    if (!block(p, &cmd->then))
      return false;
    if ((rc = sieve_take_word(p, "elsif")) < 0)
      return false;
    if (!rc) {
      rc = sieve_take_word(p, "else");
      return rc <= 0 ? !rc : block(p, &cmd->otherwise);
    }
    struct sieve_command *next = arena_new_of(p->arena, struct sieve_command);
    *next = (struct sieve_command){.kind = SIEVE_DO_IF, .line = p->line};
    if (!sieve_parse_test(p, &next->test))
      return false;
    cmd->otherwise = next;
    cmd = next;
  }
}

static bool nothing(struct sieve_parser *p, struct sieve_command *cmd) { return true; }

/* 1: a command was added at **tail; 0: there is none; -1: an error. */
static int command(struct sieve_parser *p, struct sieve_command **tail) {
  static const struct {
    const char *word;
    enum sieve_command_kind kind;
    bool (*parse)(struct sieve_parser *p, struct sieve_command *cmd);
  } table[] = {
      {"if", SIEVE_DO_IF, if_command}, {"keep", SIEVE_DO_KEEP, nothing}, {"discard", SIEVE_DO_DISCARD, nothing},
      {"stop", SIEVE_DO_STOP, nothing}, {"redirect", SIEVE_DO_REDIRECT, redirect}, {"fileinto", SIEVE_DO_FILEINTO, fileinto},
      {"vacation", SIEVE_DO_VACATION, vacation}, {"notify", SIEVE_DO_NOTIFY, notify},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    int rc = sieve_take_word(p, table[i].word);
    if (rc < 0)
      return -1;
    if (!rc)
      continue;
    struct sieve_command *cmd = arena_new_of(p->arena, struct sieve_command);
    *cmd = (struct sieve_command){.kind = table[i].kind, .line = p->line, .text = STR_UNSET};
    if (cmd->kind == SIEVE_DO_IF) {
      if (!sieve_parse_test(p, &cmd->test))
        return -1;
      *tail = cmd; /* what its blocks hold before an error counts */
      return if_command(p, cmd) ? 1 : -1;
    }
    if (!table[i].parse(p, cmd) || !need_semicolon(p))
      return -1;
    cmd->line = p->line;
    *tail = cmd;
    return 1;
  }
  return 0;
}

static bool commands(struct sieve_parser *p, bool inside, struct sieve_command **ret) {
  int rc;
  while ((rc = command(p, ret)) > 0)
    ret = &(*ret)->next;
  if (rc < 0 || inside)
    return !rc;
  if (!sieve_skip(p))
    return false;
  return p->at >= p->text.len ? true : sieve_fail(p, "syntax error");
}

struct sieve_program *sieve_compile(struct arena *a, struct str text, const struct filter_rules *rules) {
  struct sieve_program *s = arena_new_of(a, struct sieve_program);
  struct sieve_parser p = {.arena = a, .text = text, .line = 1, .rules = rules, .error = STR_UNSET};
  if (requirements(&p))
    (void)commands(&p, false, &s->commands);
  s->error = p.error;
  return s;
}
