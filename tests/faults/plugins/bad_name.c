/* The name of the loss is not UTF-8. */
#define LOSS_NAME "na\xff\xfeme"
#include "plugin.h"
