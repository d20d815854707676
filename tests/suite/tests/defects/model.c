/* The model `under-check`: a table of words and a projection, from the header alone. As it stands it keeps every
 * promise of `et.model/1`; with -DDEFECT_NAME it breaks one. */
#include "easytransfer_plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const et_host *host;
static const et_host_tensor *T;
static const et_host_nn *N;
static const et_host_data *D;
static const et_host_config *C;
static const et_host_param *P;

static et_error *init(const et_host *given) {
  host = given;
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  N = (const et_host_nn *)host->get_interface(host, "et.nn/1");
  D = (const et_host_data *)host->get_interface(host, "et.data/1");
  C = (const et_host_config *)host->get_interface(host, "et.config/1");
  P = (const et_host_param *)host->get_interface(host, "et.param/1");
  if (ET_HAS(T, affine) && ET_HAS(N, pool) && ET_HAS(D, map_put) && ET_HAS(P, scope_param)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("under-check needs a newer host"));
}

enum { WIDTH = 6, WORDS = 30, PLACES = 16 };

typedef struct {
  et_param *words, *projection;
} model;

static void drop(void *self) {
  if (self != NULL) P->release(((model *)self)->words), P->release(((model *)self)->projection);
  free(self);
}

static et_error *create(et_str config, const et_scope *scope, void **out) {
  const et_init normal = {ET_INIT_NORMAL, 0, 0.0, 0.3};
  const size_t words[2] = {WORDS, WIDTH}, square[2] = {WIDTH, WIDTH};
  model *self = (model *)calloc(1, sizeof *self);
  et_config *values = NULL;
  /* A configuration that is none is refused, though nothing is read from it. */
  et_error *error = config.len > 0 ? C->parse(config, &values) : NULL;
  C->release(values);
  if (!error) error = P->scope_param(scope, ET_STR("words"), words, 2, &normal, &self->words);
  if (!error) error = P->scope_param(scope, ET_STR("projection"), square, 2, &normal, &self->projection);
  if (error) {
    drop(self);
    return error;
  }
  *out = self;
  return NULL;
}

static et_error *describe(void *self, et_buffer **out) {
#ifdef DEFECT_width_is_missing
  static const char text[] = "{\"layers\":1,\"vocab_size\":30,\"max_positions\":16}";
#else
  static const char text[] =
      "{\"hidden_size\":6,\"layers\":1,\"vocab_size\":30,\"max_positions\":16,\"pooled\":true,\"class\":\"Mine\"}";
#endif
  (void)self;
  return D->buffer_new(text, sizeof text - 1, out);
}

static et_error *forward(void *instance, const et_call *call, const et_map *batch, et_map *outputs) {
  model *self = (model *)instance;
  et_tensor *ids = NULL, *starts = NULL, *table = NULL, *weight = NULL, *words = NULL, *last = NULL, *pooled = NULL;
  et_error *error = D->map_get(batch, ET_STR("ids"), &ids);
  if (!error) error = D->map_get(batch, ET_STR("starts"), &starts);
#ifdef DEFECT_crash_without_rows
  if (!error && T->len(ids) == 0) abort();
#endif
#ifdef DEFECT_one_row_of_none
  if (!error && T->len(ids) == 0) {
    const size_t one[2] = {1, WIDTH};
    error = T->full(ET_DTYPE_F32, one, 2, 0.0, &last);
    if (!error) error = D->map_put(outputs, ET_STR("last"), last);
    T->release(ids), T->release(starts), T->release(last);
    return error;
  }
#endif
  if (!error) error = P->tensor(self->words, &table);
  if (!error) error = P->tensor(self->projection, &weight);
  if (!error) error = T->index_select(table, 0, ids, &words);
#ifdef DEFECT_mixes_rows
  if (!error) {
    const int64_t axis = 0;
    et_tensor *mean = NULL, *sum = NULL;
    error = T->reduce(ET_REDUCE_MEAN, words, &axis, 1, 1, &mean);
    if (!error) error = T->binary(ET_BINARY_ADD, words, mean, &sum);
    T->release(mean), T->release(words), words = sum;
  }
#endif
#ifdef DEFECT_nan_on_long_runs
  if (!error && T->len(ids) > 40) {
    et_tensor *wrong = NULL;
    error = T->affine(words, NAN, 0.0, &wrong);
    T->release(words), words = wrong;
  }
#endif
#ifdef DEFECT_untrained_projection
  if (!error) last = T->retain(words);
#else
  if (!error) error = N->linear(words, weight, NULL, ET_ACTIVATION_TANH, &last);
#endif
  if (!error) error = D->map_put(outputs, ET_STR("last"), last);
  if (!error && (call->want & ET_WANT_HIDDEN_STATES)) {
    error = D->map_put(outputs, ET_STR("hidden_states/0"), words);
    if (!error) error = D->map_put(outputs, ET_STR("hidden_states/1"), last);
  }
  if (!error && (call->want & ET_WANT_POOLED)) {
#ifdef DEFECT_pooled_of_tokens
    pooled = T->retain(last);
#else
    error = N->pool(last, starts, ET_POOL_MEAN, &pooled);
#endif
    if (!error) error = D->map_put(outputs, ET_STR("pooled"), pooled);
  }
#ifdef DEFECT_changes_batch
  if (!error) error = D->map_put((et_map *)(size_t)batch, ET_STR("positions"), last);
#endif
  T->release(ids), T->release(starts), T->release(table), T->release(weight);
  T->release(words), T->release(last), T->release(pooled);
#ifdef DEFECT_leaks_memory
  {
    volatile char *kept = (volatile char *)malloc(64);
    kept[0] = 1;
  }
#endif
  return error;
}

static const et_plugin_model MODEL = {
    .struct_size = sizeof(et_plugin_model),
    .name = "under-check",
    .schema = "{}",
    .create = create,
    .describe = describe,
    .forward = forward,
    .release = drop,
};

#define KIND "et.model/1"
#define TABLE MODEL
#include "entry.h"
