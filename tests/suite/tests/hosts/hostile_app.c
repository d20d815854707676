/* An app against the C header that breaks one of the promises of `et.app/1`: the one that the environment variable
 * ET_HOSTILE names, in the slot that it belongs to. Otherwise it is right: two classes by the mean of the tokens. */
#include "easytransfer_plugin.h"

#include <stdlib.h>
#include <string.h>

static const et_host *host;
static const et_host_tensor *T;
static const et_host_nn *N;
static const et_host_data *D;
static const et_host_tokenizer *K;
static const et_host_config *C;
static const et_host_param *P;
static const et_host_net *X;

static et_error *init(const et_host *given) {
  host = given;
  T = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  N = (const et_host_nn *)host->get_interface(host, "et.nn/1");
  D = (const et_host_data *)host->get_interface(host, "et.data/1");
  K = (const et_host_tokenizer *)host->get_interface(host, "et.tokenizer/1");
  C = (const et_host_config *)host->get_interface(host, "et.config/1");
  P = (const et_host_param *)host->get_interface(host, "et.param/1");
  X = (const et_host_net *)host->get_interface(host, "et.net/1");
  if (ET_HAS(D, rows_get) && ET_HAS(P, scope_param) && ET_HAS(X, run)) return NULL;
  return host->error_new(ET_ERR_UNIMPLEMENTED, ET_STR("hostile needs a newer host"));
}

static int is(const char *fault) {
  const char *asked = getenv("ET_HOSTILE");
  return asked != NULL && strcmp(asked, fault) == 0;
}

/* The instance: the head's parameters, once they are declared. */
typedef struct {
  et_param *weight;
} app;

static et_error *text(const char *json, et_buffer **out) { return D->buffer_new(json, strlen(json), out); }

static et_error *create(et_str options, et_str state, void **out) {
  (void)options, (void)state;
  *out = calloc(1, sizeof(app));
  return NULL;
}

static void drop(void *self) {
  if (self != NULL) P->release(((app *)self)->weight);
  free(self);
}

static et_error *columns(void *self, et_buffer **out) {
  (void)self;
  if (is("columns: an object")) return text("{\"role\":\"text\"}", out);
  return text("[{\"role\":\"text\",\"names\":[\"text\"],\"required\":true,\"target\":false},"
              "{\"role\":\"label\",\"names\":[\"label\"],\"required\":true,\"target\":true}]",
              out);
}

static et_error *observe(void *self, et_str record) {
  (void)self, (void)record;
  return NULL;
}

static et_error *observed(void *self) {
  (void)self;
  return NULL;
}

static et_error *state(void *self, et_buffer **out) {
  (void)self;
  return text("{}", out);
}

static et_error *describe(void *self, et_buffer **out) {
  (void)self;
  if (is("describe: no JSON")) return text("{\"loss\":", out);
  if (is("describe: nothing")) return NULL;
  return text("{\"loss\":{\"name\":\"cross-entropy\",\"options\":{}},\"metrics\":[],\"best\":\"loss\","
              "\"best_is\":\"min\",\"finish\":true}",
              out);
}

static et_error *features(void *self, et_context *context, const et_tokenizer *tokenizer, et_str record,
                          et_rows *rows) {
  const et_encode_options options = {sizeof(et_encode_options), 32, 1, 0};
  const int64_t label = record.len % 2, seven = 7;
  et_config *values = NULL;
  et_encoding *encoding = NULL;
  et_str words = {NULL, 0};
  et_row *row = NULL;
  et_error *error = C->parse(record, &values);
  (void)self, (void)context;
  if (!error) error = C->str_at(values, ET_STR("text"), &words);
  if (!error) error = K->encode(tokenizer, words, NULL, &options, &encoding);
  if (!error && !is("features: no row")) error = D->rows_add(rows, &row);
  if (row != NULL && is("features: a released row")) {
    /* The row is the list's; whoever gives it back has no row any more. */
    D->row_release(row);
    error = D->rows_add(rows, &row);
  }
  if (row != NULL && !error)
    error = D->row_put_tokens(row, ET_STR("ids"), K->encoding_ids(encoding), K->encoding_len(encoding));
  if (row != NULL && !error && is("features: the host's name"))
    error = D->row_put_i64(row, ET_STR("source"), &seven, 1);
  if (row != NULL && !error && C->has(values, ET_STR("label")))
    error = D->row_put_i64(row, ET_STR("labels"), &label, 1);
  K->encoding_release(encoding);
  C->release(values);
  return error;
}

static et_error *build(void *self, const et_scope *scope, et_str model) {
  const et_init normal = {ET_INIT_NORMAL, 0, 0.0, 0.02};
  et_config *values = NULL;
  int64_t width = 0;
  size_t shape[2] = {2, 0};
  et_error *error = C->parse(model, &values);
  if (!error) error = C->i64_at(values, ET_STR("hidden_size"), &width);
  shape[1] = (size_t)width;
  if (!error) error = P->scope_param(scope, ET_STR("head"), shape, 2, &normal, &((app *)self)->weight);
  C->release(values);
  return error;
}

static et_error *forward(void *self, const et_call *call, et_net *net, const et_map *batch, et_map *outputs) {
  et_tensor *last = NULL, *starts = NULL, *mean = NULL, *weight = NULL, *logits = NULL;
  et_error *error;
  if (is("forward: another module")) return X->run(net, ET_STR("tower"), call, batch, outputs);
  error = X->run(net, ET_STR(""), call, batch, outputs);
  if (!error) error = D->map_get(outputs, ET_STR("last"), &last);
  if (!error) error = D->map_get(batch, ET_STR("starts"), &starts);
  if (!error) error = N->pool(last, starts, ET_POOL_MEAN, &mean);
  if (!error) error = P->tensor(((app *)self)->weight, &weight);
  if (!error) error = N->linear(mean, weight, NULL, ET_ACTIVATION_NONE, &logits);
  if (!error && !is("forward: no logits")) error = D->map_put(outputs, ET_STR("logits"), logits);
  T->release(last), T->release(starts), T->release(mean), T->release(weight), T->release(logits);
  return error;
}

static et_error *decode(void *self, const et_map *batch, const et_map *outputs, et_buffer **out) {
  static char parts[8192];
  et_tensor *starts = NULL;
  size_t rows = 0, row;
  et_error *error = D->map_get(batch, ET_STR("starts"), &starts);
  (void)self, (void)outputs;
  if (error) return error;
  rows = T->len(starts) - 1;
  T->release(starts);
  if (is("decode: too few parts")) rows -= 1;
  if (is("decode: no JSON")) return text("[{", out);
  if (is("decode: nothing")) return NULL;
  strcpy(parts, "[");
  for (row = 0; row < rows && row < 1000; row += 1) strcat(parts, row > 0 ? ",{}" : "{}");
  strcat(parts, "]");
  return text(parts, out);
}

static et_error *finish(void *self, et_str record, et_str parts, et_buffer **out) {
  (void)self, (void)record, (void)parts;
  if (is("finish: an error")) return host->error_new(ET_ERR_PANIC, ET_STR("thrown in finish"));
  if (is("finish: no object")) return text("[1]", out);
  if (is("finish: no text")) return D->buffer_new("{\"a\":\"\xff\"}", 9, out);
  if (is("finish: nothing")) return NULL;
  return text("{\"value\":1}", out);
}

static const et_plugin_app APP = {
    .struct_size = sizeof(et_plugin_app),
    .name = "hostile",
    .schema = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}",
    .create = create,
    .columns = columns,
    .observe = observe,
    .observed = observed,
    .state = state,
    .describe = describe,
    .features = features,
    .build = build,
    .forward = forward,
    .decode = decode,
    .release = drop,
    .finish = finish,
};

static const void *component(const char *kind, size_t index) {
  return index == 0 && strcmp(kind, "et.app/1") == 0 ? &APP : NULL;
}

static const et_plugin_record RECORD = {
    .magic = ET_PLUGIN_MAGIC,
    .abi_major = ET_ABI_MAJOR,
    .abi_minor = ET_ABI_MINOR,
    .struct_size = sizeof(et_plugin_record),
    .id = "hostile",
    .version = "0.1.0",
    .init = init,
    .component = component,
};

ET_EXPORT const et_plugin_record *et_plugin_entry(void) { return &RECORD; }
