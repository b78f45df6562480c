/* The ACL room as a module: the section, its state with messages and sessions, its variables. */


#include "acl/internal.h"
#include "core/module.h"
#include "expand/expand.h"

extern const struct config_section_def acl_sections[];

static int get_arg(struct ctx *c, const struct variable_def *def, struct str *ret) {
  unsigned n = def->flags;
  *ret = c->acl && (int)n < c->acl->args && n < ACL_ARGS_MAX ? c->acl->arg[n] : STR_EMPTY;
  return 0;
}

static int get_narg(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = str_printf(c->arena, "%d", c->acl ? c->acl->args : 0);
  return 0;
}

static int get_headers_added(struct ctx *c, const struct variable_def *def, struct str *ret) {
  *ret = acl_headers_added(c);
  return 0;
}

static int get_csa_status(struct ctx *c, const struct variable_def *def, struct str *ret) {
  const struct acl_session *s = acl_session(c);
  *ret = s && s->csa_status ? str_c(s->csa_status) : STR_EMPTY;
  return 0;
}

static const struct variable_def variables[] = {
    {"acl_arg1", get_arg, 0, 0}, {"acl_arg2", get_arg, 0, 1}, {"acl_arg3", get_arg, 0, 2}, {"acl_arg4", get_arg, 0, 3},
    {"acl_arg5", get_arg, 0, 4}, {"acl_arg6", get_arg, 0, 5}, {"acl_arg7", get_arg, 0, 6}, {"acl_arg8", get_arg, 0, 7},
    {"acl_arg9", get_arg, 0, 8}, {"acl_narg", get_narg, 0, 0}, {"csa_status", get_csa_status, 0, 0}, {"headers_added", get_headers_added, 0, 0}, {0},
};

const struct module acl_module = {
    .name = "acl",
    .summary = "access control lists",
    .sections = acl_sections,
    .acl_conditions = acl_core_conditions, /* they are searched first: reader.c */
    .acl_modifiers = acl_core_modifiers,
    .variables = variables,
    .message_state = {.size = sizeof(struct acl_message), .write_spool = acl_debug_write, .read_spool = acl_debug_read,
      .release = acl_debug_message_end},
    .session_state = {.size = sizeof(struct acl_session), .release = acl_debug_session_end},
    .hooks = {.message_received = acl_debug_keep},
};
