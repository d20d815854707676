/* Built for the next major version of the boundary. */
#define PLUGIN_MAJOR (ET_ABI_MAJOR + 1)
#include "plugin.h"
