/* The modules of the mail authentication room. */
#pragma once

#include "core/module.h"

extern const struct module spf_module;
extern const struct module dkim_module;
extern const struct module domainkeys_module;
extern const struct module sign_module;
extern const struct module arc_module;
extern const struct module dmarc_module;
