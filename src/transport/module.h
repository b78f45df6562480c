/* The transports' module: the class's generic options and the drivers. */
#pragma once

extern const struct module transport_module;
