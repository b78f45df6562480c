/* Tables of conditions, one a file; modules.c puts them into modules. */
#pragma once

#include "expand/expand.h"

extern const struct expand_condition_def compare_conditions[];
extern const struct expand_condition_def list_conditions[];
extern const struct expand_condition_def match_conditions[];
extern const struct expand_condition_def crypt_conditions[];
extern const struct expand_condition_def ldap_conditions[];
extern const struct expand_condition_def srs_conditions[];
