/* The record has another id than the manifest. */
#define PLUGIN_ID "somebody-else"
#include "plugin.h"
