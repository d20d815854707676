/* The record has another version than the manifest. */
#define PLUGIN_VERSION "9.9.9"
#include "plugin.h"
