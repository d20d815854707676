/* The loss table ends before `forward`. */
#define LOSS_SIZE offsetof(et_plugin_loss, forward)
#include "plugin.h"
