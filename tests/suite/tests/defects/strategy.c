/* The strategy `under-check`: weighs rows by a number that grows with the steps, adds a small loss, and counts. As it
 * stands it keeps every promise of `et.strategy/1`; with -DDEFECT_NAME it breaks one. */
#include "easytransfer_plugin.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const et_host *host;
static const et_host_tensor *T;
static const et_host_data *D;
static const et_host_stream *S;
static const et_host_session *E;

static et_error *init(const et_host *given) {
  host = given;
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  D = (const et_host_data *)host->get_interface(host, "et.data/1");
  S = (const et_host_stream *)host->get_interface(host, "et.stream/1");
  E = (const et_host_session *)host->get_interface(host, "et.session/1");
  if (ET_HAS(T, from_data) && ET_HAS(D, map_put) && ET_HAS(S, read) && ET_HAS(E, add_loss)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("under-check needs a newer host"));
}

typedef struct {
  double steps;
} strategy;

static et_error *create(et_str options, void **out) {
  (void)options;
  *out = calloc(1, sizeof(strategy));
  return NULL;
}

static void drop(void *self) { free(self); }

static uint32_t phases(void *self) {
  (void)self;
#ifdef DEFECT_unknown_phase
  return ET_PHASE_BATCH | ET_PHASE_OUTPUTS | (1u << 30);
#elif defined DEFECT_hook_is_missing
  return ET_PHASE_BATCH | ET_PHASE_OUTPUTS | ET_PHASE_COMBINE;
#elif defined DEFECT_no_phase
  return 0;
#else
  return ET_PHASE_BATCH | ET_PHASE_OUTPUTS;
#endif
}

static et_error *on_batch(void *instance, et_session *session, et_map *batch) {
  strategy *self = (strategy *)instance;
  et_tensor *labels = NULL, *weights = NULL;
  float values[1024];
  size_t shape[2] = {0, 1}, i;
  et_error *error = D->map_get(batch, ET_STR("labels"), &labels);
  (void)session;
  if (!error) shape[0] = T->len(labels);
  self->steps += 1.0;
  for (i = 0; i < shape[0] && i < 1024; i += 1) values[i] = (float)(1.0 + 0.25 * self->steps * (double)(i % 2));
#ifdef DEFECT_random_weights
  for (i = 0; i < shape[0]; i += 1) values[i] = (float)(1.0 + (double)rand() / RAND_MAX);
#endif
#ifdef DEFECT_negative_weights
  values[0] = -1.0f;
#endif
#ifdef DEFECT_weights_of_two_axes
  if (!error) error = T->from_data(ET_DTYPE_F32, shape, 2, values, shape[0] * sizeof(float), &weights);
#else
  if (!error) error = T->from_data(ET_DTYPE_F32, shape, 1, values, shape[0] * sizeof(float), &weights);
#endif
  if (!error) error = D->map_put(batch, ET_STR("weights"), weights);
#ifdef DEFECT_leaks_labels
  labels = NULL;
#endif
  T->release(labels), T->release(weights);
  return error;
}

#ifdef DEFECT_session_from_thread
static void *ask(void *session) {
  host->error_release(E->log_scalar((et_session *)session, ET_STR("under-check"), 1.0));
  return NULL;
}
#endif

static et_error *on_outputs(void *instance, et_session *session, const et_map *batch, const et_map *outputs) {
  et_tensor *logits = NULL, *square = NULL, *mean = NULL;
  double scale = 0.01;
  et_error *error = D->map_get(outputs, ET_STR("logits"), &logits);
  (void)instance, (void)batch;
#ifdef DEFECT_nan_loss
  scale = NAN;
#endif
#ifdef DEFECT_session_from_thread
  {
    pthread_t thread;
    if (pthread_create(&thread, NULL, ask, session) == 0) pthread_join(thread, NULL);
  }
#endif
  if (!error) error = T->unary(ET_UNARY_SQR, logits, &square);
  if (!error) error = T->reduce(ET_REDUCE_MEAN, square, NULL, 0, 0, &mean);
  if (!error) error = E->add_loss(session, ET_STR("small"), mean, scale);
  T->release(logits), T->release(square), T->release(mean);
  return error;
}

static et_error *state_save(void *instance, et_stream *stream) {
#ifdef DEFECT_saves_nothing
  (void)instance, (void)stream;
  return NULL;
#else
  return S->write(stream, instance, sizeof(strategy));
#endif
}

static et_error *state_load(void *instance, et_stream *stream) {
#if defined DEFECT_saves_nothing
  (void)instance, (void)stream;
  return NULL;
#elif defined DEFECT_loads_nothing
  strategy other;
  (void)instance;
  return S->read(stream, &other, sizeof other);
#else
  return S->read(stream, instance, sizeof(strategy));
#endif
}

static const et_plugin_strategy STRATEGY = {
    .struct_size = sizeof(et_plugin_strategy),
    .name = "under-check",
    .schema = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}",
    .create = create,
    .phases = phases,
    .on_batch = on_batch,
    .on_outputs = on_outputs,
#ifndef DEFECT_no_state
    .state_save = state_save,
#endif
#if !defined DEFECT_no_state && !defined DEFECT_no_load
    .state_load = state_load,
#endif
    .release = drop,
};

#define KIND "et.strategy/1"
#define TABLE STRATEGY
#include "entry.h"
