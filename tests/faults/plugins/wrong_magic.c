/* The record does not begin with the magic number. */
#define PLUGIN_MAGIC UINT64_C(0x1122334455667788)
#include "plugin.h"
