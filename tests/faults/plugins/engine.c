/* An engine that computes nothing, or one that is broken as the definitions say. */
#include "easytransfer_plugin.h"

#include <stdlib.h>
#include <string.h>

#ifndef MAGIC
#define MAGIC ET_ENGINE_MAGIC
#endif
#ifndef MAJOR
#define MAJOR ET_ABI_MAJOR
#endif
#ifndef SIZE
#define SIZE sizeof(et_engine_record)
#endif
#ifndef ENTRY
#define ENTRY et_engine_entry
#endif

static char text[200];

static et_str error_message(const et_error *error) {
  et_str message;
  (void)error;
  message.ptr = text;
  message.len = strlen(text);
  return message;
}

static void error_release(et_error *error) { free(error); }

static et_host host;

static et_error *open_engine(int32_t device, et_str options) {
  (void)device;
  text[0] = 0;
  strcat(text, "no paper for ");
  strncat(text, options.ptr, options.len < 100 ? options.len : 100);
#ifdef REFUSES
  return malloc(1);
#else
  return NULL;
#endif
}

static void provide(const char *id, const void *table) {
  (void)id;
  (void)table;
}

static et_engine_record record;

const et_engine_record *ENTRY(void);
const et_engine_record *ENTRY(void) {
  host.struct_size = sizeof host;
  host.error_message = error_message;
  host.error_release = error_release;
  record.magic = MAGIC;
  record.abi_major = MAJOR;
  record.abi_minor = ET_ABI_MINOR;
  record.struct_size = SIZE;
  record.id = "paper";
  record.version = VERSION;
  record.host = &host;
  record.open = open_engine;
  record.provide = provide;
#ifdef NO_OPEN
  record.open = NULL;
#endif
#ifdef NO_RECORD
  return NULL;
#else
  return &record;
#endif
}
