/* The loss has no name. */
#define LOSS_NAME NULL
#include "plugin.h"
