/* One app, used by four threads at once and released in the middle: each call answers, or says that the handle is none any more. */
#include "easytransfer.h"
#include <pthread.h>
#include <stdio.h>

static et_app *app;
static int wrong;
static int started;

static void *ask(void *unused)
{
    int i;
    (void)unused;
    for (i = 0; i < 200; i++) {
        const char *texts[] = {"where is my parcel", "hello"};
        et_predictions *answers = NULL;
        et_error *error = et_app_predict(app, texts, 2, &answers);
        __atomic_store_n(&started, 1, __ATOMIC_RELAXED);
        if (error ? et_error_code(error) != ET_ERR_BAD_HANDLE || answers != NULL : et_predictions_len(answers) != 2)
            __atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
        et_predictions_release(answers);
        et_error_release(error);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[4];
    et_runtime *runtime = NULL;
    int i;
    if (argc != 2 || et_runtime_new(NULL, &runtime) || et_app_load(runtime, argv[1], &app)) return 1;
    for (i = 0; i < 4; i++) pthread_create(&threads[i], NULL, ask, NULL);
    while (!__atomic_load_n(&started, __ATOMIC_RELAXED)) {}
    et_app_release(app);
    et_app_release(app);
    et_runtime_release(runtime);
    for (i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    printf("%s, %d alive\n", wrong ? "wrong" : "right", (int)et_live_handles());
    return wrong;
}
