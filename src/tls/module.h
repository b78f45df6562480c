/* The TLS room as a module: what -bV and the builtin macros say of it, and the
checks of its main options that need the library. */
#pragma once

extern const struct module tls_module;
