/* The record ends before `component`. */
#define PLUGIN_SIZE offsetof(et_plugin_record, component)
#include "plugin.h"
