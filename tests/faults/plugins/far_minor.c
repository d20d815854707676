/* Needs a host a thousand minor versions newer. */
#define PLUGIN_MINOR (ET_ABI_MINOR + 1000)
#include "plugin.h"
