#pragma once

#include "core/module.h"

/* The core module's entries for struct module's `libraries`. */
extern const struct library_def core_libraries[];
