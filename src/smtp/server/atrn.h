#pragma once

#include "base/str.h"

struct ctx;
struct acl_clause;
struct variable_def;

/* The condition atrn_domains. [suspends] */
int smtp_acl_atrn_domains(struct ctx *c, const struct acl_clause *clause, struct str arg);
int smtp_atrn_mode(struct ctx *c, const struct variable_def *def, struct str *ret);
int smtp_atrn_host(struct ctx *c, const struct variable_def *def, struct str *ret);
