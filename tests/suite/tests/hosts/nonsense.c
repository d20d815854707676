/* What the walk over all functions of easytransfer.h needs; the calls themselves are generated below it by c_nonsense.rs.
   Arguments: the bundle, its config.json as text, the name of the function. */
#include "easytransfer.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEN(array) (sizeof(array) / sizeof(array)[0])
#define NAN_VALUE (0.0 / zero)

static double zero = 0.0;

/* Of each kind: NULL, a live one, one that was released, one of another kind, two that never were any. */
#define HANDLES 6
enum { RUNTIME, APP, EMBEDDER, LOSS, MODEL, OPTIMIZER, PREDICTIONS, TEXT, KINDS };
static void *handles[KINDS][HANDLES];
static int is_bad(size_t index) { return index != 1; }

static et_runtime *out_et_runtime;
static et_app *out_et_app;
static et_embedder *out_et_embedder;
static et_loss *out_et_loss;
static et_model *out_et_model;
static et_optimizer *out_et_optimizer;
static et_predictions *out_et_predictions;
static et_text *out_et_text;
static et_map *out_et_map;
static et_tensor *out_et_tensor;

static char deep[200001];
static const char *strings[] = {NULL, "", "nonsense", "\xff\xfe", "{\"plugins\": 5, \"precision\": []}", "-1e999", deep};
static const char *const three_texts[] = {"a text", NULL, "\xff"};
static const char *const *texts[] = {NULL, three_texts};
static const et_str three_sized[] = {{"a\0text", 6}, {NULL, 4}, {"\xff", 1}};
static const et_str *sized[] = {NULL, three_sized};
static const et_str requests[] = {{NULL, 0}, {"\"a text\"", 8}, {"\"a\0b\"", 5}, {"{", 1}, {NULL, 4}, {"\xff", 1}};
static const size_t sizes[] = {0, 1, 2, 3, SIZE_MAX, SIZE_MAX / 8 + 1, SIZE_MAX / 2};
static float room[64];
static float *rooms[] = {NULL, room};
static const int32_t int32s[] = {0, 1, -1, INT32_MIN, INT32_MAX};
static const uint32_t uint32s[] = {0, 1, UINT32_MAX};
static const uint64_t uint64s[] = {0, UINT64_MAX};
static double doubles[5];
/* Objects of the engine: NULL, a live one, handles of this library, an address that never was one. */
#define OBJECTS 5
static void *maps[OBJECTS];
static void *errors[OBJECTS];
static uint64_t zeros[512];
static const et_plugin_record *records[2];

static int32_t stop(void *user, const et_event *event)
{
    (void)user, (void)event;
    return 0;
}
static const et_on_event callbacks[] = {NULL, stop};

static unsigned long calls, refused;

static void fail(const char *function, const size_t *at, const char *what)
{
    size_t i;
    printf("%s, arguments", function);
    for (i = 0; i < 8; i++) printf(" %d", (int)at[i]);
    printf(": %s\n", what);
    exit(3);
}

/* The last line says which call it was when the program does not come back from it. */
static void note(const char *function, const size_t *at)
{
    size_t i;
    calls++;
    printf("%s", function);
    for (i = 0; i < 8; i++) printf(" %d", (int)at[i]);
    printf("\n");
    fflush(stdout);
}

static void judge(const char *function, const size_t *at, et_error *error, int must_fail)
{
    size_t i, sum = 0;
    for (i = 0; i < 8; i++) sum += at[i];
    if (!error) {
        if (must_fail) fail(function, at, "took a handle that is none");
        if (sum == 0) fail(function, at, "took NULL for everything");
        return;
    }
    refused++;
    if (et_error_code(error) == 0 || et_error_message(error).len == 0) fail(function, at, "an error without code or text");
    if (et_error_code(error) == ET_ERR_PANIC) fail(function, at, "a panic");
    et_error_release(error);
}

static void need(const char *what, et_error *error)
{
    if (!error) return;
    printf("%s: %.*s\n", what, (int)et_error_message(error).len, et_error_message(error).ptr);
    exit(4);
}

/* One of each kind; `name` is for a model of its own. */
static void make(void **all, et_runtime *runtime, const char *bundle, const char *config)
{
    const char *one = "where is my parcel";
    et_app *app = NULL; et_embedder *embedder = NULL; et_loss *loss = NULL; et_model *model = NULL;
    et_optimizer *optimizer = NULL; et_predictions *predictions = NULL; et_text *text = NULL;
    need("app", et_app_load(runtime, bundle, &app));
    need("embedder", et_embedder_load(runtime, bundle, NULL, &embedder));
    need("loss", et_loss_new(runtime, "cross-entropy", NULL, &loss));
    need("model", et_model_new(runtime, "bert", config, 1, &model));
    need("optimizer", et_optimizer_new(runtime, "adamw", NULL, model, &optimizer));
    need("predictions", et_app_predict(app, &one, 1, &predictions));
    need("text", et_app_predict_json(app, "\"hello\"", &text));
    all[APP] = app; all[EMBEDDER] = embedder; all[LOSS] = loss; all[MODEL] = model;
    all[OPTIMIZER] = optimizer; all[PREDICTIONS] = predictions; all[TEXT] = text;
}

static void set_up(const char *bundle, const char *config)
{
    void *live[KINDS], *gone[KINDS];
    et_runtime *runtime = NULL, *released = NULL;
    const et_host *host;
    const et_host_data *data;
    et_map *map = NULL;
    size_t kind;
    need("runtime", et_runtime_new(NULL, &runtime));
    need("runtime", et_runtime_new(NULL, &released));
    make(live, runtime, bundle, config);
    make(gone, released, bundle, config);
    live[RUNTIME] = runtime; gone[RUNTIME] = released;
    /* The model before its optimizer, the runtime before everything. */
    et_runtime_release(released); et_model_release(gone[MODEL]); et_optimizer_release(gone[OPTIMIZER]);
    et_app_release(gone[APP]); et_embedder_release(gone[EMBEDDER]); et_loss_release(gone[LOSS]);
    et_predictions_release(gone[PREDICTIONS]); et_text_release(gone[TEXT]);
    for (kind = 0; kind < KINDS; kind++) {
        handles[kind][0] = NULL;
        handles[kind][1] = live[kind];
        handles[kind][2] = gone[kind];
        handles[kind][3] = live[(kind + 1) % KINDS];
        handles[kind][4] = (void *)8;
        handles[kind][5] = (void *)room;
    }
    host = et_runtime_host(runtime);
    data = (const et_host_data *)host->get_interface(host, "et.data/1");
    need("map", data->map_new(&map));
    maps[0] = NULL; maps[1] = map; maps[2] = live[APP]; maps[3] = gone[TEXT]; maps[4] = (void *)16;
    errors[0] = NULL; errors[1] = et_runtime_load_plugin(runtime, "nowhere");
    errors[2] = live[APP]; errors[3] = gone[TEXT]; errors[4] = (void *)16;
    doubles[1] = -1.0; doubles[2] = NAN_VALUE; doubles[3] = 1.0 / zero; doubles[4] = 1e-3;
    memset(deep, '[', sizeof deep - 1);
    records[1] = (const et_plugin_record *)zeros;
}

/* Whatever was called: what is still alive answers as before, unless it is what was released. */
static void check_the_rest(const char *function)
{
    static const size_t none[8];
    const char *one = "where is my parcel";
    et_predictions *predictions = NULL;
    if (strcmp(function, "et_app_release") != 0) {
        if (et_app_labels_len(handles[APP][1]) == 0) fail(function, none, "the app is gone");
        need("predict again", et_app_predict(handles[APP][1], &one, 1, &predictions));
        if (et_predictions_len(predictions) != 1) fail(function, none, "the app has no answer");
        et_predictions_release(predictions);
    }
    if (strcmp(function, "et_embedder_release") != 0 && et_embedder_width(handles[EMBEDDER][1]) == 0)
        fail(function, none, "the embedder is gone");
    if (strcmp(function, "et_text_release") != 0 && et_text_len(handles[TEXT][1]) == 0)
        fail(function, none, "the text is gone");
}
