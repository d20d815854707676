/* `component` of the record is NULL. */
#define PLUGIN_COMPONENT NULL
#include "plugin.h"
