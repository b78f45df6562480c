/* The pipe transport: hands the message to a command (Exim manual, chapter
"The pipe transport"). The command line is split into arguments first; each
argument is expanded on its own, so that inserted text never makes arguments. */

#include <ctype.h>
#include <unistd.h>

#include "base/buf.h"
#include "deliver/errors.h"
#include "core/main_options.h"
#include "expand/expand.h"
#include "filter/filter.h"
#include "log/log.h"
#include "match/match.h"
#include "message/message.h"
#include "base/ascii.h"
#include "transport/bsmtp.h"
#include "transport/command.h"
#include "transport/local.h"
#include "transport/options.h"
#include "transport/transport.h"

struct pipe_options {
  bool force_command, freeze_exec_fail, freeze_signal, ignore_status, log_defer_output, log_fail_output, log_output,
      permit_coredump, pipe_as_creator, restrict_to_path, return_fail_output, return_output, timeout_defer, use_bsmtp, use_classresources,
      use_crlf, use_shell;
  struct transport_batch batch;
  struct str check_string, escape_string, temp_errors;
  struct option_expr allow_commands, command, environment, message_prefix, message_suffix, path;
  int64_t max_output, timeout, umask;
};

#define OFF(f) offsetof(struct pipe_options, f)
static const struct option_def pipe_option_table[] = {
    {"allow_commands", OPTION_EXPR, OFF(allow_commands)},
    {"batch_id", OPTION_EXPR, OFF(batch.id)},
    {"batch_max", OPTION_INT, OFF(batch.max), "1"},
    {"check_string", OPTION_STRING, OFF(check_string)},
    {"command", OPTION_EXPR, OFF(command)},
    {"environment", OPTION_EXPR, OFF(environment)},
    {"escape_string", OPTION_STRING, OFF(escape_string)},
    {"force_command", OPTION_BOOL, OFF(force_command)},
    {"freeze_exec_fail", OPTION_BOOL, OFF(freeze_exec_fail)},
    {"freeze_signal", OPTION_BOOL, OFF(freeze_signal)},
    {"ignore_status", OPTION_BOOL, OFF(ignore_status)},
    {"log_defer_output", OPTION_BOOL, OFF(log_defer_output)},
    {"log_fail_output", OPTION_BOOL, OFF(log_fail_output)},
    {"log_output", OPTION_BOOL, OFF(log_output)},
    {"max_output", OPTION_SIZE, OFF(max_output), "20K"},
    {"message_prefix", OPTION_EXPR, OFF(message_prefix)},
    {"message_suffix", OPTION_EXPR, OFF(message_suffix)},
    {"path", OPTION_EXPR, OFF(path), "/bin:/usr/bin"},
    {"permit_coredump", OPTION_BOOL, OFF(permit_coredump)},
    {"pipe_as_creator", OPTION_BOOL, OFF(pipe_as_creator)},
    {"restrict_to_path", OPTION_BOOL, OFF(restrict_to_path)},
    {"return_fail_output", OPTION_BOOL, OFF(return_fail_output)},
    {"return_output", OPTION_BOOL, OFF(return_output)},
    {"temp_errors", OPTION_STRING, OFF(temp_errors), "75:73"},
    {"timeout", OPTION_TIME, OFF(timeout), "1h"},
    {"timeout_defer", OPTION_BOOL, OFF(timeout_defer)},
    {"umask", OPTION_OCTAL, OFF(umask), "022"},
    {"use_bsmtp", OPTION_BOOL, OFF(use_bsmtp)},
    {"use_classresources", OPTION_BOOL, OFF(use_classresources), NULL, OPTION_LATER | OPTION_HIDDEN},
    {"use_crlf", OPTION_BOOL, OFF(use_crlf)},
    {"use_shell", OPTION_BOOL, OFF(use_shell)},
    OPTIONS_END,
};

/* Digits and colons, or an asterisk for all. */
static bool is_code_list(struct str text) {
  if (str_eq_c(text, "*"))
    return true;
  for (size_t i = 0; i < text.len; i++)
    if (!ascii_is_digit(text.p[i]) && text.p[i] != ':' && text.p[i] != ' ' && text.p[i] != '\t')
      return false;
  return true;
}

static int pipe_init(struct config_reader *r, struct instance *i) {
  struct pipe_options *o = i->options;
  if (!o->use_bsmtp && !str_is_set(o->message_prefix.text))
    o->message_prefix.text = STR(TRANSPORT_MBOX_PREFIX);
  if (!o->use_bsmtp && !str_is_set(o->message_suffix.text))
    o->message_suffix.text = STR("\n");
  if (o->use_shell && (o->restrict_to_path || str_is_set(o->allow_commands.text)))
    return config_error_at(r, i->where, "both %s and use_shell set for %.*s transport",
        o->restrict_to_path ? "restrict_to_path" : "allow_commands", STRF(i->name));
  if (!is_code_list(o->temp_errors))
    return config_error_at(r, i->where, "temp_errors must be a list of numbers or an asterisk for the %.*s transport", STRF(i->name));
  const struct transport_options *g = i->generic;
  if (o->pipe_as_creator && (g->user.set || g->group.set))
    return config_error_at(r, i->where, "both pipe_as_creator and an explicit uid/gid are set for the %.*s transport", STRF(i->name));
  if (o->return_fail_output && o->return_output)
    return config_error_at(r, i->where, "both return_output and return_fail_output set for %.*s transport", STRF(i->name));
  if (o->log_fail_output && o->log_output)
    return config_error_at(r, i->where, "both log_output and log_fail_output set for the %.*s transport", STRF(i->name));
  return 0;
}

static const struct transport_batch *pipe_batch(const struct instance *t) {
  return &((const struct pipe_options *)t->options)->batch;
}

static bool fail(struct address *chain, enum outcome o, struct str text) {
  transport_chain_result(chain, o, o == OUTCOME_DEFER ? 0 : ERROR_UNKNOWN, text);
  for (struct address *a = chain; a; a = a->next)
    a->panic = o == OUTCOME_DEFER;
  return false;
}

static bool quietly(struct address *chain, struct str text) {
  transport_chain_result(chain, OUTCOME_DEFER, 0, text);
  return false;
}

/* What strangers have a hand in is not for commands. */
static bool refuse_command(struct ctx *c, const struct instance *t, struct address *chain, struct str what) {
  transport_chain_result(chain, OUTCOME_DEFER, 0,
      str_printf(c->arena, "Tainted '%.*s' (command for %.*s transport) not permitted", STRF(what), STRF(t->name)));
  for (struct address *a = chain; a; a = a->next)
    a->panic = true;
  return false;
}

static bool refuse_argument(struct ctx *c, const struct instance *t, struct address *chain, size_t n, struct str arg) {
  return fail(chain, OUTCOME_FAIL,
      str_printf(c->arena, "Tainted arg %zu for %.*s transport command: '%.*s'", n, STRF(t->name), STRF(arg)));
}

static bool add_argument(struct address *chain, struct plan *p, struct str arg) {
  if (p->argv_n >= PLAN_ARGS_MAX)
    return fail(chain, OUTCOME_FAIL, STR("too many arguments to the pipe's command"));
  if (arg.len && memchr(arg.p, 0, arg.len))
    return fail(chain, OUTCOME_FAIL, STR("NUL byte in an argument of the pipe's command"));
  p->argv[p->argv_n++] = arg;
  return true;
}

/* A filter's command: its arguments were expanded by the filter, as its user. */
static bool filter_command(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct filter_item *item = chain->filter;
  p->argv = arena_array(c->arena, struct str, PLAN_ARGS_MAX + 1);
  if (str_is_set(item->pipe_error))
    return fail(chain, OUTCOME_DEFER, str_printf(c->arena, "%.*s (%.*s transport)", STRF(item->pipe_error), STRF(t->name)));
  for (int64_t i = 0; i < item->argv_n; i++) {
    if (!str_eq_c(item->argv[i], "$pipe_addresses")) {
      if (i > 0 && !chain->router && str_is_tainted(item->argv[i])) /* the system filter's: nobody else's privileges */
        return refuse_argument(c, t, chain, (size_t)i, item->argv[i]);
      if (!add_argument(chain, p, item->argv[i]))
        return false;
      continue;
    }
    for (struct address *a = chain; a; a = a->next)
      if (!add_argument(chain, p, a->address))
        return false;
  }
  return p->argv_n ? true : fail(chain, OUTCOME_FAIL, STR("empty command"));
}

static bool split_command(struct ctx *c, const struct instance *t, struct address *chain, struct str command, bool expand_args,
    struct plan *p) {
  struct command made;
  if (chain->filter && !expand_args)
    return filter_command(c, t, chain, p);
  if (!expand_args && str_is_tainted(command))
    return refuse_command(c, t, chain, command);
  bool forced = expand_args && chain->kind == ADDRESS_PIPE && ((const struct pipe_options *)t->options)->force_command;
  int e = command_build(c, command, expand_args, chain, forced ? str_from(chain->address, 1) : STR_UNSET,
      str_printf(c->arena, "%.*s transport", STRF(t->name)), &made);
  if (e)
    return fail(chain, (enum outcome)e, c->error);
  if (made.tainted)
    return refuse_argument(c, t, chain, made.tainted, made.argv[made.tainted]);
  p->argv = made.argv;
  p->argv_n = (int64_t)made.n;
  return true;
}

static bool on_list(struct ctx *c, struct str list, struct str name) {
  struct list_iter i;
  struct str item;
  list_iter_init(&i, c->arena, list);
  while (list_next(&i, &item))
    if (str_eq(item, name))
      return true;
  return false;
}

/* Finds the program: allow_commands, restrict_to_path, then the path list (Exim manual, "How the command is run"). */
static bool find_program(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p, struct str path) {
  const struct pipe_options *o = t->options;
  struct str allow = STR_UNSET, name = p->argv[0];
  bool allowed = !str_is_set(o->allow_commands.text);
  if (str_is_tainted(name))
    return refuse_command(c, t, chain, name);
  if (!allowed) {
    if (!local_expand(c, t, chain, &o->allow_commands, "allow_commands", &allow))
      return false;
    allowed = on_list(c, allow, name);
    if (!allowed && !o->restrict_to_path)
      return fail(chain, OUTCOME_FAIL, str_printf(c->arena, "\"%.*s\" command not permitted by %.*s transport", STRF(name), STRF(t->name)));
  }
  bool slash = memchr(name.p, '/', name.len) != NULL;
  if (o->restrict_to_path && slash && (!allowed || !str_is_set(o->allow_commands.text)))
    return fail(chain, OUTCOME_FAIL, str_printf(c->arena, "\"/\" found in \"%.*s\" (command for %.*s transport) - failed for security reasons",
        STRF(name), STRF(t->name)));
  if (name.p[0] == '/')
    return true;
  struct list_iter i;
  struct str dir;
  list_iter_init(&i, c->arena, path);
  while (list_next(&i, &dir)) {
    struct str full = str_printf(c->arena, "%.*s/%.*s", STRF(dir), STRF(name));
    if (access(full.p, F_OK) == 0) {
      p->argv[0] = full;
      return true;
    }
  }
  return fail(chain, OUTCOME_FAIL, str_printf(c->arena, "\"%.*s\" command not found for %.*s transport", STRF(name), STRF(t->name)));
}

static void add_env(struct ctx *c, struct plan *p, const char *name, struct str value) {
  if (p->environment_n < PLAN_ARGS_MAX && !(value.len && memchr(value.p, 0, value.len)))
    p->environment[p->environment_n++] = str_printf(c->arena, "%s=%.*s", name, STRF(value));
}

static bool environment(struct ctx *c, const struct instance *t, struct address *chain, struct str path, struct plan *p) {
  const struct pipe_options *o = t->options;
  const struct main_options *mo = main_options(c->config);
  p->environment = arena_array(c->arena, struct str, PLAN_ARGS_MAX + 1);
  if (!chain->next) {
    add_env(c, p, "LOCAL_PART", chain->kind == ADDRESS_PIPE && chain->parent ? chain->parent->local_part : chain->local_part);
    add_env(c, p, "LOGNAME", chain->local_part);
    add_env(c, p, "USER", chain->local_part);
    add_env(c, p, "LOCAL_PART_PREFIX", chain->prefix);
    add_env(c, p, "LOCAL_PART_SUFFIX", chain->suffix);
    add_env(c, p, "DOMAIN", chain->domain);
    add_env(c, p, "HOME", str_is_set(p->home) ? p->home : STR_EMPTY);
    add_env(c, p, "RECIPIENT", chain->topaddr);
  }
  add_env(c, p, "MESSAGE_ID", str_c(c->message->id));
  add_env(c, p, "PATH", path);
  add_env(c, p, "QUALIFY_DOMAIN", mo->qualify_domain);
  add_env(c, p, "SENDER", chain->return_path);
  add_env(c, p, "SHELL", STR("/bin/sh"));
  if (chain->hosts)
    add_env(c, p, "HOST", chain->hosts->name);
  if (str_is_set(mo->timezone) && mo->timezone.len)
    add_env(c, p, "TZ", mo->timezone);
  if (!str_is_set(o->environment.text))
    return true;
  struct str list, item;
  struct list_iter i;
  if (expand_option(c, &o->environment, &list))
    return quietly(chain, str_printf(c->arena, "failed to expand string \"%.*s\" for %.*s transport: %.*s",
        STRF(o->environment.text), STRF(t->name), STRF(c->error)));
  list_iter_init(&i, c->arena, list);
  while (list_next(&i, &item)) {
    if (p->environment_n >= PLAN_ARGS_MAX)
      return fail(chain, OUTCOME_DEFER, STR("too many environment settings"));
    p->environment[p->environment_n++] = item;
  }
  return true;
}

static bool wrap(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct pipe_options *o = t->options;
  struct str prefix = STR_EMPTY, suffix = STR_EMPTY;
  if (str_is_set(o->message_prefix.text) && !local_expand_affix(c, t, chain, &o->message_prefix, "prefix", &prefix))
    return false;
  if (str_is_set(o->message_suffix.text) && !local_expand_affix(c, t, chain, &o->message_suffix, "suffix", &suffix))
    return false;
  if (o->use_bsmtp)
    bsmtp_wrap(c, chain, &prefix, &suffix);
  p->prefix_length = prefix.len;
  p->head = str_cat(c->arena, prefix, p->head);
  p->tail = suffix;
  p->check_string = str_is_set(o->check_string) ? o->check_string : o->use_bsmtp ? STR(".") : STR_EMPTY;
  p->escape_string = str_is_set(o->escape_string) ? o->escape_string : o->use_bsmtp ? STR("..") : STR_EMPTY;
  return true;
}

static void log_output(struct ctx *c, const struct instance *t, struct address *chain, struct str output) {
  struct str line = output;
  line = str_trim(str_cut(&line, '\n'));
  log_write(LOG_MAIN, c->message, "<%.*s>: %.*s transport output: %.*s", STRF(chain->address), STRF(t->name),
      STRF(log_printable(c->arena, line)));
}

/* What the command printed may fail the delivery, be returned, and be logged. */
static void use_output(struct ctx *c, const struct instance *t, struct address *chain, struct plan_result *r) {
  const struct pipe_options *o = t->options;
  if (!str_is_set(r->output) || !r->output.len)
    return;
  bool failed = r->outcome == OUTCOME_FAIL, deferred = r->outcome == OUTCOME_DEFER;
  if (o->log_output || (failed && o->log_fail_output) || (deferred && o->log_defer_output))
    log_output(c, t, chain, r->output);
  if (!failed && !c->message->reverse_path.len)
    return; /* nobody to send it to */
  if (o->return_output && !deferred) {
    if (!failed)
      transport_chain_result(chain, OUTCOME_FAIL, ERROR_UNKNOWN, STR("return message generated"));
    chain->return_file = r->output;
  } else if (o->return_fail_output && failed) {
    chain->return_file = r->output;
  }
}

/* What needs no quoting in a shell. */
static bool harmless(struct str s) {
  for (size_t i = 0; i < s.len; i++)
    if (!isalnum((unsigned char)s.p[i]) && !strchr("@._+=-", s.p[i]))
      return false;
  return true;
}

/* use_shell: the whole is expanded as one string, but $pipe_addresses in it stands for all addresses. */
static bool expand_for_shell(struct ctx *c, const struct instance *t, struct address *chain, struct str text, struct str *ret) {
  const struct str mark = STR("$pipe_addresses");
  struct buf b;
  buf_init(&b, c->arena, BUF_MAX_EXPANSION);
  for (;;) {
    ptrdiff_t at = str_find(text, mark);
    struct str part = at < 0 ? text : str_slice(text, 0, (size_t)at), value = STR_EMPTY;
    if (part.len && expand_text(c, part, &value))
      return fail(chain, OUTCOME_DEFER, str_printf(c->arena, "Expansion of command \"%.*s\" in %.*s transport failed: %.*s", STRF(text),
          STRF(t->name), STRF(c->error)));
    buf_add(&b, value);
    if (at < 0)
      break;
    for (const struct address *a = chain; a; a = a->next) {
      if (!harmless(a->address))
        return fail(chain, OUTCOME_FAIL, str_printf(c->arena, "Tainted '%.*s' (command for %.*s transport) not permitted", STRF(a->address),
            STRF(t->name)));
      buf_printf(&b, "%s%.*s", a == chain ? "" : " ", (int)a->address.len, a->address.p);
    }
    text = str_from(text, (size_t)at + mark.len);
  }
  *ret = buf_str(&b);
  return true;
}

static void pipe_deliver(struct ctx *c, const struct instance *t, struct address *chain) {
  const struct pipe_options *o = t->options;
  struct transport_message message;
  struct plan p;
  struct plan_result result;
  struct str path, command;
  bool from_address = chain->kind == ADDRESS_PIPE && !o->force_command;
  if (o->pipe_as_creator) /* whoever wrote the message */
    for (struct address *a = chain; a; a = a->next) {
      a->uid = c->message->originator_uid;
      a->gid = c->message->originator_gid;
      a->uid_set = a->gid_set = true;
      a->initgroups = false;
    }
  if (!local_plan_prepare(c, t, chain, &p, &message))
    return;
  if (chain->kind == ADDRESS_PIPE)
    c->vars.address_pipe = str_from(chain->address, 1);
  command = from_address ? str_ltrim(str_from(chain->address, 1)) : o->command.text;
  if (!str_is_set(command) || !command.len) {
    quietly(chain, str_printf(c->arena, "no command specified for %.*s transport", STRF(t->name)));
    return;
  }
  if (!local_expand(c, t, chain, &o->path, "path", &path))
    return;
  if (o->use_shell) {
    if (!from_address && !expand_for_shell(c, t, chain, o->command.text, &command))
      return;
    if (from_address && chain->filter && str_is_set(chain->filter->shell_command))
      command = chain->filter->shell_command;
    if (str_is_tainted(command)) {
      (void)refuse_command(c, t, chain, command);
      return;
    }
    p.argv = arena_array(c->arena, struct str, 4);
    p.argv[p.argv_n++] = STR("/bin/sh");
    p.argv[p.argv_n++] = STR("-c");
    p.argv[p.argv_n++] = command;
  } else if (!split_command(c, t, chain, command, !from_address, &p) || !find_program(c, t, chain, &p, path)) {
    return;
  }
  if (!environment(c, t, chain, path, &p) || !wrap(c, t, chain, &p))
    return;
  p.kind = PLAN_PIPE;
  p.umask = o->umask;
  p.timeout = o->timeout;
  p.timeout_defer = o->timeout_defer;
  p.max_output = o->max_output;
  p.ignore_status = o->ignore_status;
  p.freeze_exec_fail = o->freeze_exec_fail;
  p.freeze_signal = o->freeze_signal;
  p.permit_coredump = o->permit_coredump;
  p.temp_errors = o->temp_errors;
  p.use_crlf = o->use_crlf;
  p.path = command;
  local_plan_run(c, t, chain, &p, &result);
  use_output(c, t, chain, &result);
}

const struct transport_def transport_pipe = {
    .driver = {.name = "pipe", .class = DRIVER_TRANSPORT, .options = pipe_option_table, .options_size = sizeof(struct pipe_options),
        .summary = "hand messages to a command", .init = pipe_init},
    .local = true,
    .batch = pipe_batch,
    .deliver = pipe_deliver,
};
