/* A correct plugin with one loss. Each fault defines one of these macros differently and includes this file. */
#ifndef FAULTS_PLUGIN_H
#define FAULTS_PLUGIN_H

#include "easytransfer_plugin.h"

#ifndef PLUGIN_ID
#define PLUGIN_ID "loss-under-test"
#endif
#ifndef PLUGIN_VERSION
#define PLUGIN_VERSION "1.2.3"
#endif
#ifndef PLUGIN_MAGIC
#define PLUGIN_MAGIC ET_PLUGIN_MAGIC
#endif
#ifndef PLUGIN_MAJOR
#define PLUGIN_MAJOR ET_ABI_MAJOR
#endif
#ifndef PLUGIN_MINOR
#define PLUGIN_MINOR ET_ABI_MINOR
#endif
#ifndef PLUGIN_SIZE
#define PLUGIN_SIZE sizeof(et_plugin_record)
#endif
#ifndef PLUGIN_FLAGS
#define PLUGIN_FLAGS 0
#endif
#ifndef PLUGIN_INIT
#define PLUGIN_INIT init
#endif
#ifndef PLUGIN_SHUTDOWN
#define PLUGIN_SHUTDOWN shut_down
#endif
#ifndef PLUGIN_COMPONENT
#define PLUGIN_COMPONENT component
#endif
#ifndef LOSS_SIZE
#define LOSS_SIZE sizeof(et_plugin_loss)
#endif
#ifndef LOSS_NAME
#define LOSS_NAME "under-test"
#endif
#ifndef LOSS_SCHEMA
#define LOSS_SCHEMA "{}"
#endif
#ifndef LOSS_CREATE
#define LOSS_CREATE create
#endif
#ifndef LOSS_FORWARD
#define LOSS_FORWARD forward
#endif

#ifdef __cplusplus
#define PLUGIN_LINKAGE extern "C"
#else
#define PLUGIN_LINKAGE
#endif

static const et_host *the_host;
/* How often init succeeded less how often shutdown was called; every instance of the loss points to it. */
static int plugin_running;

static inline et_error *fail(int32_t code, const char *message, size_t len) {
  et_str text;
  text.ptr = message;
  text.len = len;
  return the_host->error_new(code, text);
}

#ifndef CUSTOM_INIT
static et_error *init(const et_host *host) {
  the_host = host;
  plugin_running += 1;
  return NULL;
}
#endif

static inline void shut_down(void) { plugin_running -= 1; }

#ifndef CUSTOM_CREATE
static inline et_error *create(et_str options, void **out) {
  (void)options;
  *out = &plugin_running;
  return NULL;
}
#endif

static inline et_error *forward(void *instance, const et_call *call, const et_map *outputs,
                                const et_map *batch, et_tensor **out) {
  static const char message[] = "this loss computes nothing";
  (void)instance, (void)call, (void)outputs, (void)batch, (void)out;
  return fail(ET_ERR_UNIMPLEMENTED, message, sizeof message - 1);
}

static void release(void *instance) { (void)instance; }

/* Files of C++17 include this one, so the fields have no names here. */
static const et_plugin_loss LOSS = {LOSS_SIZE,    LOSS_NAME, LOSS_SCHEMA, LOSS_CREATE,
                                    LOSS_FORWARD, release,   NULL,        NULL};

static inline int is_loss(const char *kind) {
  const char *wanted = "et.loss/1";
  while (*wanted != 0 && *wanted == *kind) {
    wanted += 1;
    kind += 1;
  }
  return *wanted == *kind;
}

#ifndef CUSTOM_COMPONENT
static inline const void *component(const char *kind, size_t index) {
  return is_loss(kind) && index == 0 ? &LOSS : NULL;
}
#endif

static const et_plugin_record RECORD = {
    PLUGIN_MAGIC, PLUGIN_MAJOR,   PLUGIN_MINOR, PLUGIN_SIZE,     PLUGIN_FLAGS,    0,
    PLUGIN_ID,    PLUGIN_VERSION, PLUGIN_INIT,  PLUGIN_SHUTDOWN, PLUGIN_COMPONENT};

#ifndef CUSTOM_ENTRY
PLUGIN_LINKAGE ET_EXPORT const et_plugin_record *et_plugin_entry(void);
const et_plugin_record *et_plugin_entry(void) { return &RECORD; }
#endif

#endif
