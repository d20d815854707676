/* A training loop by hand, one line per step: plugins, model, batch, loss, gradients, freezing, optimizer. The encoder directory gives
 * configuration and tokenizer; weights are random, so the numbers depend on the seed alone. */
#define HOSTS_NEED_FILES
#define HOSTS_NEED_NUMBERS
#include "common.h"

static const et_host_tensor *tensors;
static const et_host_autograd *autograd;
static const et_host_param *params_of;
static const et_host_data *data;
static const et_host_nn *nn;
static const et_host_tokenizer *tokenizers;

static const char *const TEXTS[] = {"where is my parcel", "I want my money back", "the parcel is late",
                                    "please return the money"};
static const int64_t LABELS[] = {0, 1, 0, 1};
enum { ROWS = 4, CLASSES = 2 };

static et_str text(const char *value) {
  et_str result;
  result.ptr = value;
  result.len = strlen(value);
  return result;
}

static void open_tables(const et_host *host) {
  tensors = (const et_host_tensor *)host->get_interface(host, "et.tensor/1");
  autograd = (const et_host_autograd *)host->get_interface(host, "et.autograd/1");
  params_of = (const et_host_param *)host->get_interface(host, "et.param/1");
  data = (const et_host_data *)host->get_interface(host, "et.data/1");
  nn = (const et_host_nn *)host->get_interface(host, "et.nn/1");
  tokenizers = (const et_host_tokenizer *)host->get_interface(host, "et.tokenizer/1");
  if (!ET_HAS(tensors, read) || !ET_HAS(autograd, backward) || !ET_HAS(params_of, set_trainable) ||
      !ET_HAS(data, batch_from_rows) || !ET_HAS(nn, linear) || !ET_HAS(tokenizers, encode)) {
    fprintf(stderr, "error: this engine lacks an interface, a newer one is needed\n");
    exit(1);
  }
}

/* A batch of the four texts: token ids end to end, and where each row starts. */
static et_map *make_batch(const char *encoder) {
  et_tokenizer *tokenizer = NULL;
  et_row *rows[ROWS] = {NULL};
  et_map *batch = NULL;
  int i;
  check(tokenizers->load(text(encoder), &tokenizer));
  for (i = 0; i < ROWS; ++i) {
    et_encoding *encoding = NULL;
    size_t len;
    check(tokenizers->encode(tokenizer, text(TEXTS[i]), NULL, NULL, &encoding));
    len = tokenizers->encoding_len(encoding);
    check(data->row_new(&rows[i]));
    check(data->row_put_tokens(rows[i], text("ids"), tokenizers->encoding_ids(encoding), len));
    check(data->row_put_tokens(rows[i], text("segments"), tokenizers->encoding_segments(encoding), len));
    check(data->row_put_i64(rows[i], text("labels"), &LABELS[i], 1));
    tokenizers->encoding_release(encoding);
  }
  check(data->batch_from_rows((const et_row *const *)rows, ROWS, &batch));
  for (i = 0; i < ROWS; ++i) data->row_release(rows[i]);
  tokenizers->release(tokenizer);
  return batch;
}

/* Declares the weight of a linear head beside the encoder's parameters. */
static et_param *make_head(et_params *params, size_t width) {
  et_scope *root = params_of->params_root(params);
  et_param *head = NULL;
  et_init init = {ET_INIT_NORMAL, 0, 0.0, 0.02};
  size_t shape[2];
  shape[0] = CLASSES;
  shape[1] = width;
  check(params_of->scope_param(root, text("classifier.weight"), shape, 2, &init, &head));
  params_of->scope_release(root);
  return head;
}

/* The loss of the present parameters on the batch, on the tape. */
static et_tensor *forward(et_model *model, et_param *head, et_loss *loss, const et_map *batch) {
  et_map *outputs = NULL;
  et_tensor *pooled = NULL, *weight = NULL, *logits = NULL, *result = NULL;
  check(et_model_forward(model, batch, 0, ET_WANT_POOLED, &outputs));
  check(data->map_get(outputs, text("pooled"), &pooled));
  check(params_of->tensor(head, &weight));
  check(nn->linear(pooled, weight, NULL, ET_ACTIVATION_NONE, &logits));
  check(data->map_put(outputs, text("logits"), logits));
  check(et_loss_forward(loss, outputs, batch, &result));
  tensors->release(pooled);
  tensors->release(weight);
  tensors->release(logits);
  data->map_release(outputs);
  return result;
}

static float value_of(const et_tensor *scalar) {
  float value = 0;
  check(tensors->read(scalar, &value, sizeof value));
  return value;
}

static void print_gradients(const char *step, et_params *params) {
  size_t i, count = 0, embeddings = 0;
  for (i = 0; i < params_of->params_len(params); ++i) {
    et_param *param = params_of->params_at(params, i);
    if (params_of->has_grad(param)) {
      const et_str name = params_of->name(param);
      ++count;
      embeddings += name.len > 11 && strncmp(name.ptr, "embeddings.", 11) == 0;
    }
    params_of->release(param);
  }
  printf("%s: %lu parameters received a gradient, %lu of them embeddings\n", step, (unsigned long)count,
         (unsigned long)embeddings);
}

int main(int argc, char **argv) {
  et_runtime *runtime = NULL;
  et_model *model = NULL;
  et_loss *loss = NULL;
  et_optimizer *optimizer = NULL;
  et_text *plugins = NULL;
  et_params *params;
  et_param *head, *word;
  et_map *batch, *outputs = NULL;
  et_tensor *ids = NULL, *pooled = NULL, *scalar;
  char *path, *config;
  size_t i, width, elements = 0;
  if (argc != 2) usage("quickstart ENCODER");

  check(et_runtime_new(NULL, &runtime));
  open_tables(et_runtime_host(runtime));
  check(et_runtime_plugins_json(runtime, &plugins));
  fprintf(stderr, "plugins: %s\n", et_text_data(plugins));
  printf("1 load: easytransfer %s\n", et_version());

  path = (char *)allocate(strlen(argv[1]) + 16);
  sprintf(path, "%s/config.json", argv[1]);
  config = read_file(path, &i);
  check(et_model_new(runtime, "bert", config, 7, &model));
  params = et_model_params(model);
  for (i = 0; i < params_of->params_len(params); ++i) {
    et_param *param = params_of->params_at(params, i);
    size_t axis, len = 1;
    for (axis = 0; axis < params_of->rank(param); ++axis) len *= params_of->shape(param)[axis];
    elements += len;
    params_of->release(param);
  }
  printf("2 model: %lu parameters, %lu values\n", (unsigned long)params_of->params_len(params), (unsigned long)elements);

  batch = make_batch(argv[1]);
  check(data->map_get(batch, text("ids"), &ids));
  printf("3 batch: %d rows, %lu tokens\n", ROWS, (unsigned long)tensors->len(ids));

  check(et_model_forward(model, batch, 0, ET_WANT_POOLED, &outputs));
  check(data->map_get(outputs, text("pooled"), &pooled));
  width = tensors->shape(pooled)[1];
  tensors->release(pooled);
  data->map_release(outputs);
  head = make_head(params, width);
  check(et_optimizer_new(runtime, "adamw", NULL, model, &optimizer)); /* seals the parameters */
  check(et_loss_new(runtime, "cross-entropy", NULL, &loss));
  scalar = forward(model, head, loss, batch);
  printf("4 loss: ");
  print_number(value_of(scalar));
  printf("\n");

  check(autograd->backward(scalar, NULL));
  tensors->release(scalar);
  print_gradients("5 backward", params);

  params_of->params_zero_grads(params);
  for (i = 0; i < params_of->params_len(params); ++i) {
    word = params_of->params_at(params, i);
    if (strncmp(params_of->name(word).ptr, "embeddings.", 11) == 0) check(params_of->set_trainable(word, 0));
    params_of->release(word);
  }
  scalar = forward(model, head, loss, batch);
  check(autograd->backward(scalar, NULL));
  tensors->release(scalar);
  print_gradients("6 frozen", params);

  params_of->params_zero_grads(params);
  for (i = 1; i <= 5; ++i) {
    scalar = forward(model, head, loss, batch);
    check(autograd->backward(scalar, NULL));
    check(et_optimizer_step(optimizer, model, 1e-3));
    tensors->release(scalar);
    scalar = forward(model, head, loss, batch);
    printf("7 step %lu: loss ", (unsigned long)i);
    print_number(value_of(scalar));
    printf("\n");
    tensors->release(scalar);
  }

  free(config);
  free(path);
  tensors->release(ids);
  data->map_release(batch);
  params_of->release(head);
  et_loss_release(loss);
  et_optimizer_release(optimizer);
  et_model_release(model);
  et_text_release(plugins);
  et_runtime_release(runtime);
  return finish();
}
