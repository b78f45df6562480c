/* Reading a configuration for use: parsed, its strings compiled, its constant
lists compiled. */
#pragma once

#include "config/config.h"

/* As config_read; warnings of the compilers are among (*ret)->warnings. */
int load_config(const struct config_source *source, struct arena *a, struct config **ret, struct str *ret_errors) MUST_CHECK;
