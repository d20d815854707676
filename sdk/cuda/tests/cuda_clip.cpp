// The clipping kernels on the emulator, against plain loops. Prints one line per check; the exit code is the number
// of those that failed.
#define ET_EMULATE "../tests/cuda_emulator.hpp"

#include <cmath>
#include <vector>

#include "../kernels/clip.cu"

static int failed = 0;

static void report(const char *name, bool good) {
    failed += !good;
    std::printf("%s %s\n", good ? "ok    " : "FAILED", name);
}

// Runs both kernels over two tasks with a gap between them, which must stay as it is.
static void clip(const char *name, double pending, double limit, bool clips) {
    std::vector<float> g(1000), expected;
    for (size_t i = 0; i < g.size(); ++i) {
        g[i] = (float)((int)(i * 37 % 101) - 50) / 16.0f;
    }
    expected = g;
    EtTask tasks[] = {{0, 300, 0}, {320, 600, 1}};
    double sum = 0.0, norm = -1.0;
    float factor = -1.0f;
    for (const EtTask &task : tasks) {
        for (uint32_t i = 0; i < task.len; ++i) {
            sum += (double)g[task.start + i] * g[task.start + i];
        }
    }
    et_launch(1, 1, 1, 1, [&] { et_clip_factor(pending, limit, &sum, &norm, &factor); });
    double right = std::sqrt(sum * pending * pending);
    report(name, norm == right && (factor < 1.0f) == clips);
    et_launch(2, 1, 256, 1, [&] { et_clip_apply(tasks, &factor, g.data()); });
    float scale = clips ? (float)(limit / (right + 1e-6)) : 1.0f;
    for (const EtTask &task : tasks) {
        for (uint32_t i = 0; i < task.len; ++i) {
            expected[task.start + i] *= scale;
        }
    }
    report("  gradients", g == expected);
}

int main() {
    clip("above the limit", 1.0, 1.0, true);
    clip("below the limit", 1.0, 1e4, false);
    clip("brought below it by what is pending", 1e-3, 1.0, false);
    clip("brought above it by what is pending", 100.0, 1e3, true);
    double sum = NAN, norm = 0.0;
    float factor = 0.0f;
    et_launch(1, 1, 1, 1, [&] { et_clip_factor(1.0, 1.0, &sum, &norm, &factor); });
    report("no number", std::isnan(norm) && factor == 1.0f);
    sum = INFINITY;
    et_launch(1, 1, 1, 1, [&] { et_clip_factor(1.0, 1.0, &sum, &norm, &factor); });
    report("infinite", std::isinf(norm) && factor == 0.0f);
    return failed;
}
