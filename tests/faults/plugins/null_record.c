/* The entry function returns NULL. */
#include "easytransfer_plugin.h"

const et_plugin_record *et_plugin_entry(void) { return NULL; }
