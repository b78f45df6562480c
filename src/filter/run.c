/* Exim filters obeyed. Nothing is delivered here: commands add items to the
result (filter specification, "Filter operation"). */

#include <stdarg.h>

#include "base/vec.h"
#include "core/main_options.h"
#include "filter/internal.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"

/* --- shared --- */

int filter_fail(struct filter_runner *r, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  r->result->outcome = FILTER_ERROR;
  r->result->text = str_vprintf(r->c->arena, fmt, ap);
  va_end(ap);
  return -1;
}

/* Quotes as the filter's file has them. */
static struct str with_escapes(struct arena *a, struct str s) {
  struct buf b;
  if (str_find_byte(s, '"') < 0)
    return s;
  buf_init(&b, a, 2 * s.len + 1);
  for (uint32_t i = 0; i < s.len; i++) {
    if (s.p[i] == '"')
      buf_add_byte(&b, '\\');
    buf_add_byte(&b, s.p[i]);
  }
  struct str text = buf_str(&b);
  text.taint = s.taint;
  return text;
}

bool filter_expand(struct filter_runner *r, const struct filter_value *v, const char *where, struct str *ret) {
  if (expand(r->c, v->tree, ret) == 0)
    return true;
  filter_fail(r, "failed to expand \"%.*s\" in %s: %.*s", STRF(with_escapes(r->c->arena, v->text)), where, STRF(r->c->error));
  return false;
}

bool filter_step(struct filter_runner *r) {
  if (++r->steps <= FILTER_STEPS_MAX)
    return true;
  filter_fail(r, "filter takes more than %d steps", FILTER_STEPS_MAX);
  return false;
}

struct filter_item *filter_add_item(struct filter_runner *r, enum filter_item_kind kind, struct str text) {
  struct filter_item item = {.kind = kind, .text = text, .errors_to = STR_UNSET, .mode = -1, .shell_command = STR_UNSET, .pipe_error = STR_UNSET};
  if (r->result->items.n >= FILTER_ITEMS_MAX) {
    filter_fail(r, "filter generates more than %d deliveries", FILTER_ITEMS_MAX);
    return NULL;
  }
  vec_push(r->c->arena, &r->result->items, item);
  return &r->result->items.v[r->result->items.n - 1];
}

struct str filter_qualified(struct ctx *c, struct str address) {
  if (str_find_byte(address, '@') >= 0)
    return address;
  return str_cat(c->arena, address, str_cat(c->arena, STR("@"), main_options(c->config)->qualify_recipient));
}

static const char *noerror(const struct filter_command *cmd) { return cmd->noerror ? " (noerror)" : ""; }

static struct str printable(struct filter_runner *r, struct str s) { return log_printable(r->c->arena, s); }

/* --- deliver, save, pipe --- */

/* Users may have errors sent to themselves only. */
static bool own_address(struct filter_runner *r, struct str address) {
  const struct policy_vars *v = &r->c->vars;
  struct arena *a = r->c->arena;
  struct str at = str_cat(a, STR("@"), v->domain);
  struct str whole = str_cat(a, v->local_part_prefix, str_cat(a, v->local_part, v->local_part_suffix));
  return str_ieq(address, str_cat(a, v->local_part, at)) || str_ieq(address, str_cat(a, whole, at));
}

static int parse_address(struct filter_runner *r, struct str text, struct str *ret) {
  struct mail_address m;
  struct str error;
  if (address_parse(r->c->arena, text, address_flags(r->c, 0), &m, &error))
    return filter_fail(r, "malformed address \"%.*s\" in filter file: %.*s", STRF(text), STRF(error));
  *ret = m.address;
  return 0;
}

static int deliver(struct filter_runner *r, const struct filter_command *cmd) {
  struct str address, errors = STR_UNSET;
  if (!filter_expand(r, &cmd->value[0], "deliver command", &address) || parse_address(r, address, &address))
    return -1;
  if (str_is_set(cmd->value[1].text)) {
    if (!filter_expand(r, &cmd->value[1], "deliver command", &errors))
      return -1;
    if (parse_address(r, errors, &errors))
      return -1;
    if (!r->rules->system && !own_address(r, errors))
      return filter_fail(r, "errors_to must point to the caller's address");
  }
  if (r->rules->testing) {
    fprintf(r->rules->out, "%seliver message to: %.*s%s%s%.*s\n", cmd->seen ? "D" : "Unseen d",
        STRF(filter_qualified(r->c, address)), noerror(cmd), str_is_set(errors) ? " errors_to " : "", STRF(errors));
    return 0;
  }
  struct filter_item *item = filter_add_item(r, FILTER_ADDRESS, address);
  if (!item)
    return -1;
  item->errors_to = errors;
  item->noerror = cmd->noerror;
  return 0;
}

static int save(struct filter_runner *r, const struct filter_command *cmd) {
  struct str file;
  if (!filter_expand(r, &cmd->value[0], "save command", &file))
    return -1;
  if (r->rules->testing) {
    fprintf(r->rules->out, "%save message to: %.*s", cmd->seen ? "S" : "Unseen s", STRF(file));
    if (cmd->mode >= 0)
      fprintf(r->rules->out, " %04o", (unsigned)cmd->mode);
    fprintf(r->rules->out, "%s\n", noerror(cmd));
    return 0;
  }
  struct filter_item *item = filter_add_item(r, FILTER_FILE, file);
  if (!item)
    return -1;
  item->mode = cmd->mode;
  item->noerror = cmd->noerror;
  return 0;
}

/* The command is expanded now, argument by argument: by whom the filter runs as. Its errors show when it is to run. */
static int pipe_command(struct filter_runner *r, const struct filter_command *cmd) {
  if (r->rules->testing) {
    fprintf(r->rules->out, "%sipe message to: %.*s%s\n", cmd->seen ? "P" : "Unseen p", STRF(printable(r, cmd->value[0].text)),
        noerror(cmd));
    return 0;
  }
  struct filter_item *item = filter_add_item(r, FILTER_PIPE, str_cat(r->c->arena, STR("|"), cmd->value[0].text));
  if (!item)
    return -1;
  item->noerror = cmd->noerror;
  filter_expand_command(r, cmd->value[0].text, item);
  return 0;
}

/* --- small ones --- */

static int add(struct filter_runner *r, const struct filter_command *cmd) {
  struct str number, name;
  int64_t n;
  if (!filter_expand(r, &cmd->value[0], "add command", &number) || !filter_expand(r, &cmd->value[1], "add command", &name))
    return -1;
  if (!str_to_i64(str_trim(number), &n) || n > INT32_MAX || n < -INT32_MAX)
    return filter_fail(r, "malformed number \"%.*s\" in \"add\" command", STRF(number));
  if (name.len != 2 || name.p[0] != 'n' || name.p[1] < '0' || name.p[1] > '9')
    return filter_fail(r, "unknown variable \"%.*s\" in \"add\" command", STRF(name));
  if (r->rules->testing)
    fprintf(r->rules->out, "Add %lld to n%c\n", (long long)n, name.p[1]);
  r->vars->n[name.p[1] - '0'] += n;
  return 0;
}

static int end_with(struct filter_runner *r, const struct filter_command *cmd) {
  static const char *const names[] = {[COMMAND_DEFER] = "defer", [COMMAND_FAIL] = "fail", [COMMAND_FREEZE] = "freeze"};
  const char *name = names[cmd->kind];
  struct str text;
  if (!filter_expand(r, &cmd->value[0], cmd->kind == COMMAND_DEFER ? "defer command" : cmd->kind == COMMAND_FAIL ? "fail command"
          : "freeze command", &text))
    return -1;
  if (r->rules->testing) {
    struct str shown = printable(r, text);
    fprintf(r->rules->out, "%c%s text \"%.*s\"\n", name[0] - 32, name + 1, STRF(shown));
  } else if (cmd->kind == COMMAND_FREEZE && r->rules->manually_thawed) {
    return 0;
  }
  r->result->text = text;
  r->result->outcome = cmd->kind == COMMAND_DEFER ? FILTER_DEFER : cmd->kind == COMMAND_FAIL ? FILTER_FAIL : FILTER_FREEZE;
  return 1;
}

/* Lines of a header; what is not a header line is added as it is, as Exim does. */
static void add_headers(struct filter_runner *r, struct str text) {
  struct message *m = r->c->message;
  text = str_ltrim(text);
  while (text.len) {
    size_t end = 0;
    do {
      ptrdiff_t newline = str_find_byte(str_from(text, end), '\n');
      end = newline < 0 ? text.len : end + (size_t)newline + 1;
    } while (end < text.len && (text.p[end] == ' ' || text.p[end] == '\t'));
    struct str line = str_slice(text, 0, end);
    text = str_from(text, end);
    if (!str_ends(line, STR("\n")))
      line = str_cat(m->arena, line, STR("\n"));
    message_add_header(m, header_name_length(line) ? 0 : HEADER_OTHER, str_dup(m->arena, line));
  }
  r->result->headers_changed = true;
}

static void remove_headers(struct filter_runner *r, struct str list) {
  while (str_is_set(list)) {
    struct str name = str_trim(str_cut(&list, ':'));
    struct header *h = NULL;
    while (name.len && (h = message_find_header(r->c->message, name, h))) {
      h->type = HEADER_DELETED;
      r->result->headers_changed = true;
    }
  }
}

static int headers(struct filter_runner *r, const struct filter_command *cmd) {
  struct str value;
  int rc = expand(r->c, cmd->value[0].tree, &value);
  if (rc == OUTCOME_FORCED)
    return 0;
  if (rc)
    return filter_fail(r, "failed to expand \"%.*s\" in headers command: %.*s", STRF(cmd->value[0].text), STRF(r->c->error));
  if (r->rules->testing) {
    const char *what = cmd->headers == 'a' ? "add" : cmd->headers == 'r' ? "remove" : "charset";
    fprintf(r->rules->out, "Headers %s \"%.*s\"\n", what, STRF(printable(r, value)));
  }
  if (cmd->headers == 'c')
    r->vars->charset = value;
  else if (!r->c->message)
    return 0;
  else if (cmd->headers == 'a')
    add_headers(r, value);
  else
    remove_headers(r, value);
  return 0;
}

static int logfile(struct filter_runner *r, const struct filter_command *cmd) {
  if (!filter_expand(r, &cmd->value[0], "logfile command", &r->log_name))
    return -1;
  r->log_mode = cmd->mode >= 0 ? cmd->mode : 0600;
  r->log_given = true;
  if (r->rules->testing)
    fprintf(r->rules->out, "Logfile %.*s\n", STRF(r->log_name));
  return 0;
}

static int logwrite(struct filter_runner *r, const struct filter_command *cmd) {
  struct str text;
  if (!filter_expand(r, &cmd->value[0], "logwrite command", &text))
    return -1;
  if (r->rules->testing) {
    fprintf(r->rules->out, "Logwrite \"%.*s\"\n", STRF(printable(r, text)));
    return 0;
  }
  return r->rules->forbid_logwrite ? filter_fail(r, "logwrite command forbidden") : filter_log_write(r, text);
}

static int testprint(struct filter_runner *r, const struct filter_command *cmd) {
  struct str text;
  if (!filter_expand(r, &cmd->value[0], "testprint command", &text))
    return -1;
  if (r->rules->testing)
    fprintf(r->rules->out, "Testprint: %.*s\n", STRF(printable(r, text)));
  return 0;
}

/* --- all --- */

static int obey_all(struct filter_runner *r, const struct filter_command *cmd);

static int obey_if(struct filter_runner *r, const struct filter_command *cmd) {
  struct str saved = r->vars->this_address;
  bool yes = false;
  r->level++;
  int rc = filter_test(r, cmd->test, true, &yes);
  if (!rc)
    rc = obey_all(r, yes ? cmd->then : cmd->otherwise);
  r->level--;
  r->vars->this_address = saved;
  return rc;
}

/* 0: go on; 1: the filter has ended; -1: with an error. */
static int obey(struct filter_runner *r, const struct filter_command *cmd) {
  switch (cmd->kind) {
  case COMMAND_ADD: return add(r, cmd);
  case COMMAND_DEFER:
  case COMMAND_FAIL:
  case COMMAND_FREEZE: return end_with(r, cmd);
  case COMMAND_DELIVER: return deliver(r, cmd);
  case COMMAND_FINISH:
    if (r->rules->testing)
      fprintf(r->rules->out, "%sinish\n", cmd->seen ? "Seen f" : "F");
    return 1;
  case COMMAND_HEADERS: return headers(r, cmd);
  case COMMAND_IF: return obey_if(r, cmd);
  case COMMAND_LOGFILE: return logfile(r, cmd);
  case COMMAND_LOGWRITE: return logwrite(r, cmd);
  case COMMAND_MAIL:
  case COMMAND_VACATION: return filter_mail(r, cmd);
  case COMMAND_PIPE: return pipe_command(r, cmd);
  case COMMAND_SAVE: return save(r, cmd);
  case COMMAND_TESTPRINT: return testprint(r, cmd);
  }
  return 0;
}

static int obey_all(struct filter_runner *r, const struct filter_command *cmd) {
  int rc = 0;
  for (; cmd && !rc; cmd = cmd->next) {
    if (!filter_step(r))
      return -1;
    rc = obey(r, cmd);
    r->delivered |= rc >= 0 && cmd->seen;
  }
  return rc;
}

static void say_outcome(struct filter_runner *r, int rc) {
  FILE *out = r->rules->out;
  static const char *const ended[] = {[FILTER_DEFER] = "defer", [FILTER_FAIL] = "fail", [FILTER_FREEZE] = "freeze"};
  if (rc < 0)
    fprintf(out, "Filter error: %.*s\n", STRF(r->result->text));
  else if (r->result->outcome >= FILTER_DEFER)
    fprintf(out, "Filtering ended by \"%s\".\n", ended[r->result->outcome]);
  else if (r->delivered)
    fputs("Filtering set up at least one significant delivery or other action.\nNo other deliveries will occur.\n", out);
  else
    fputs("Filtering did not set up a significant delivery.\nNormal delivery will occur.\n", out);
}

static void run_exim(struct ctx *c, const struct filter_program *program, const struct filter_rules *rules, struct filter_result *ret) {
  struct filter_runner r = {.c = c, .rules = rules, .result = ret, .vars = c->filter, .log_mode = 0600};
  int rc = 0;
  ret->outcome = FILTER_NOT_DELIVERED;
  if (str_is_set(program->error))
    rc = filter_fail(&r, "%.*s", STRF(program->error));
  else
    rc = obey_all(&r, program->commands);
  if (rc >= 0 && ret->outcome == FILTER_NOT_DELIVERED && r.delivered)
    ret->outcome = FILTER_DELIVERED;
  if (rules->testing)
    say_outcome(&r, rc);
  memcpy(ret->n, r.vars->n, sizeof ret->n);
}

void filter_run(struct ctx *c, struct str text, const struct filter_rules *rules, struct filter_result *ret) {
  struct filter_vars vars = {.this_address = STR_UNSET, .charset = STR_UNSET, .forbid = rules->forbid, .system = rules->system};
  struct filter_vars *saved_vars = c->filter;
  struct expand_vars saved = ctx_save(c);
  *ret = (struct filter_result){.text = STR_UNSET};
  c->filter = &vars;
  struct filter_cached *held;
  const struct filter_program *program = filter_cache_get(text, rules, &held);
  if (program->sieve)
    filter_run_sieve(c, program->sieve, rules, ret);
  else
    run_exim(c, program, rules, ret);
  filter_cache_release(held);
  c->filter = saved_vars;
  ctx_restore(c, &saved);
}
