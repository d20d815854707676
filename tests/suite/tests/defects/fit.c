/* The strategy `under-check` that drives the fit: steps of the trainer's own, and a number that it keeps. As it
 * stands it keeps every promise of `et.strategy/1`; with -DDEFECT_NAME it breaks one. */
#include "easytransfer_plugin.h"

#include <stdlib.h>
#include <string.h>

static const et_host *host;
static const et_host_stream *S;
static const et_host_session *E;

static et_error *init(const et_host *given) {
  host = given;
  S = (const et_host_stream *)host->get_interface(host, "et.stream/1");
  E = (const et_host_session *)host->get_interface(host, "et.session/1");
  if (ET_HAS(S, read) && ET_HAS(E, commit)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("under-check needs a newer host"));
}

typedef struct {
  double average;
} strategy;

static et_error *create(et_str options, void **out) {
  (void)options;
  *out = calloc(1, sizeof(strategy));
  return NULL;
}

static void drop(void *self) { free(self); }

static uint32_t phases(void *self) {
  (void)self;
  return ET_PHASE_FIT;
}

static et_error *save(void *context, et_stream *stream) { return S->write(stream, context, sizeof(strategy)); }

static et_error *fit(void *instance, et_session *session) {
  strategy *self = (strategy *)instance;
  et_saver saver = {sizeof(et_saver), NULL, save};
  et_error *error = NULL;
  int32_t goes_on = 1;
  saver.context = self;
  while (goes_on && !error) {
    error = E->step_once(session, ET_STR("train"));
    self->average = 0.9 * self->average + 0.1 * (double)E->step(session) + 1.0;
    if (!error) error = E->log_scalar(session, ET_STR("average"), self->average);
#ifdef DEFECT_saves_nothing
    if (!error) error = E->commit(session, ET_STR("{\"loss\":1}"), NULL, &goes_on);
#else
    if (!error) error = E->commit(session, ET_STR("{\"loss\":1}"), &saver, &goes_on);
#endif
#ifdef DEFECT_goes_on
    goes_on = 1;
#endif
  }
  return error;
}

static et_error *state_load(void *instance, et_stream *stream) {
#ifdef DEFECT_saves_nothing
  (void)instance, (void)stream;
  return NULL;
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
#ifndef DEFECT_hook_is_missing
    .fit = fit,
#endif
    .state_save = save,
    .state_load = state_load,
    .release = drop,
};

#define KIND "et.strategy/1"
#define TABLE STRATEGY
#include "entry.h"
