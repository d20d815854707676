/* The metric `under-check`: the mean of the logits, and their number. As it stands it keeps every promise of
 * `et.metric/1`; with -DDEFECT_NAME it breaks one. */
#include "easytransfer_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const et_host *host;
static const et_host_tensor *T;
static const et_host_data *D;
static const et_host_stream *S;

static et_error *init(const et_host *given) {
  host = given;
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  D = (const et_host_data *)host->get_interface(host, "et.data/1");
  S = (const et_host_stream *)host->get_interface(host, "et.stream/1");
  if (ET_HAS(T, cast) && ET_HAS(D, map_get) && ET_HAS(S, read)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("under-check needs a newer host"));
}

typedef struct {
  double sum, count, batches;
} counts;

#ifdef DEFECT_shared_counts
static counts shared;
#define NEW() (&shared)
#define FREE(self) ((void)(self))
#else
#define NEW() ((counts *)calloc(1, sizeof(counts)))
#define FREE(self) free(self)
#endif

static et_error *create(et_str options, void **out) {
  (void)options;
  *out = NEW();
  return NULL;
}

static void drop(void *self) { FREE(self); }

static et_error *update(void *instance, const et_map *outputs, const et_map *batch) {
  counts *self = (counts *)instance;
  et_tensor *logits = NULL, *x = NULL, *sum = NULL;
  double value = 0.0;
  size_t len = 0;
  et_error *error = D->map_get(outputs, ET_STR("logits"), &logits);
  (void)batch;
  if (!error) error = T->cast(logits, ET_DTYPE_F64, &x);
  if (!error) error = T->reduce(ET_REDUCE_SUM, x, NULL, 0, 0, &sum);
  if (!error) error = T->read(sum, &value, sizeof value);
  if (!error) len = T->len(x);
#ifdef DEFECT_aborts_without_rows
  if (!error && len == 0) abort();
#endif
#ifdef DEFECT_fixed_buffer
  if (!error) {
    double buffer[64];
    memset(buffer, 0, sizeof buffer);
    /* Reads more than fits where there are more. */
    if (len > 64) abort();
    error = T->read(x, buffer, len * sizeof(double));
  }
#endif
#ifdef DEFECT_changes_outputs
  if (!error) error = D->map_put((et_map *)(size_t)outputs, ET_STR("logits"), x);
#endif
#ifdef DEFECT_order_of_rows
  if (!error && len > 0) {
    double first[4096];
    if (len <= 4096) error = T->read(x, first, len * sizeof(double));
    value = first[0] * (double)len;
  }
#endif
  if (!error) self->sum += value, self->count += (double)len, self->batches += 1.0;
  T->release(logits), T->release(x), T->release(sum);
  return error;
}

static et_error *compute(void *instance, et_buffer **out) {
  counts *self = (counts *)instance;
  char text[128];
  double mean = self->count > 0.0 ? self->sum / self->count : 0.0;
  int len;
#ifdef DEFECT_counts_batches
  mean = self->batches > 0.0 ? self->sum / self->batches : 0.0;
#endif
#ifdef DEFECT_nan_without_rows
  mean = self->sum / self->count;
#endif
#ifdef DEFECT_null_result
  return NULL;
#endif
  len = snprintf(text, sizeof text, "{\"mean\":%.17g,\"number\":%.0f}", mean, self->count);
#ifdef DEFECT_no_object
  len = snprintf(text, sizeof text, "[%.17g]", mean);
#endif
#ifdef DEFECT_figure_is_text
  len = snprintf(text, sizeof text, "{\"mean\":\"%.17g\"}", mean);
#endif
#ifdef DEFECT_compute_resets
  memset(self, 0, sizeof *self);
#endif
  return D->buffer_new(text, (size_t)len, out);
}

static et_error *describe(void *instance, et_buffer **out) {
#ifdef DEFECT_unknown_figure
  static const char text[] = "{\"lower_is_better\":[\"median\"]}";
#elif defined DEFECT_of_answers_without_slot
  static const char text[] = "{\"of\":\"answers\"}";
#else
  static const char text[] = "{\"lower_is_better\":[\"mean\"]}";
#endif
  (void)instance;
  return D->buffer_new(text, sizeof text - 1, out);
}

static et_error *state_save(void *self, et_stream *stream) {
#ifdef DEFECT_saves_half
  return S->write(stream, self, sizeof(double));
#else
  return S->write(stream, self, sizeof(counts));
#endif
}

static et_error *state_merge(void *instance, et_stream *stream) {
  counts *self = (counts *)instance, other = {0.0, 0.0, 0.0};
#ifdef DEFECT_saves_half
  et_error *error = S->read(stream, &other, sizeof(double));
#else
  et_error *error = S->read(stream, &other, sizeof other);
#endif
#ifdef DEFECT_merge_replaces
  if (!error) *self = other;
#else
  if (!error) self->sum += other.sum, self->count += other.count, self->batches += other.batches;
#endif
  return error;
}

static const et_plugin_metric METRIC = {
    .struct_size = sizeof(et_plugin_metric),
    .name = "under-check",
    .schema = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}",
    .create = create,
    .update = update,
    .compute = compute,
    .release = drop,
    .describe = describe,
    .state_save = state_save,
#ifndef DEFECT_no_merge
    .state_merge = state_merge,
#endif
};

#define KIND "et.metric/1"
#define TABLE METRIC
#include "entry.h"
