/* Works, but says that a panic in it ends the process. */
#define PLUGIN_FLAGS ET_PLUGIN_FLAG_PANIC_ABORT
#include "plugin.h"
