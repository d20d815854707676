/* Built for a version of the boundary whose slots meant something else. */
#define PLUGIN_MINOR (ET_ABI_MINOR_OLDEST - 1)
#include "plugin.h"
