// Adafactor (Shazeer and Stern 2018) over an arena, in four passes: moments, factors of the columns, squares of the
// updates, the step. The meaning is that of kernels/adafactor.rs. A task is a piece of one parameter, whole rows of a
// matrix; sums go over tasks in their order.
#include "optim.cuh"

// One parameter; the same fields as `Factored` of cuda/adafactor.rs. A vector has `cols` 0 and a second moment per
// element.
struct EtFactored {
    uint64_t start;
    // First element of its state: means of rows, then of columns; or of all squares.
    uint64_t state;
    // First element of its tasks' sums of columns, [tasks, cols].
    uint64_t partial;
    uint32_t rows;
    uint32_t cols;
    uint32_t first_task;
    uint32_t tasks;
    float keep;
    float rate;
};

// Rates that all parameters share; the same fields as `Rates` of cuda/adafactor.rs.
struct EtFactoring {
    float scale;
    float eps;
    float mix;
    float clip;
};

__device__ __forceinline__ float et_square(const EtFactoring& c, float g) { return g * c.scale * (g * c.scale) + c.eps; }

// Second moments of vectors and of rows, and the sums of the columns of each task.
extern "C" __global__ void et_adafactor_moments(const EtTask* tasks, const EtFactored* params, EtFactoring c, const float* g, float* state,
                                                float* partial) {
    EtTask task = tasks[blockIdx.x];
    EtFactored f = params[task.param];
    const float* in = g + task.start;
    if (f.cols == 0) {
        float* v = state + f.state + (task.start - f.start);
        for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
            v[i] += (et_square(c, in[i]) - v[i]) * c.mix;
        }
        return;
    }
    uint32_t rows = task.len / f.cols;
    uint64_t first = (task.start - f.start) / f.cols;
    for (uint32_t row = threadIdx.x >> 5; row < rows; row += blockDim.x >> 5) {
        float sum = 0.0f;
        for (uint32_t col = threadIdx.x & 31; col < f.cols; col += 32) {
            sum += et_square(c, in[(uint64_t)row * f.cols + col]);
        }
        sum = et_warp_sum(sum);
        if ((threadIdx.x & 31) == 0) {
            float* mean = state + f.state + first + row;
            *mean += (sum / (float)f.cols - *mean) * c.mix;
        }
    }
    float* sums = partial + f.partial + (uint64_t)(blockIdx.x - f.first_task) * f.cols;
    for (uint32_t col = threadIdx.x; col < f.cols; col += blockDim.x) {
        float sum = 0.0f;
        for (uint32_t row = 0; row < rows; ++row) {
            sum += et_square(c, in[(uint64_t)row * f.cols + col]);
        }
        sums[col] = sum;
    }
}

// Second moments of columns, and means [params] of those of rows. One block per parameter.
extern "C" __global__ void et_adafactor_factors(const EtFactored* params, EtFactoring c, const float* partial, float* state, float* means) {
    EtFactored f = params[blockIdx.x];
    if (f.cols == 0) {
        return;
    }
    double total = 0.0;
    for (uint32_t row = threadIdx.x; row < f.rows; row += blockDim.x) {
        total += state[f.state + row];
    }
    total = et_block_sum(total);
    if (threadIdx.x == 0) {
        means[blockIdx.x] = (float)(total / f.rows);
    }
    for (uint32_t col = threadIdx.x; col < f.cols; col += blockDim.x) {
        double sum = 0.0;
        for (uint32_t task = 0; task < f.tasks; ++task) {
            sum += partial[f.partial + (uint64_t)task * f.cols + col];
        }
        float* mean = state + f.state + f.rows + col;
        *mean += ((float)(sum / f.rows) - *mean) * c.mix;
    }
}

// The update of an element before clipping.
__device__ __forceinline__ float et_update(const EtFactored& f, const EtFactoring& c, const float* state, float mean, uint64_t at, float g) {
    const float* own = state + f.state;
    if (f.cols == 0) {
        return g * c.scale / sqrtf(own[at]);
    }
    // 1 / sqrt(row col / mean(rows)), as a product of two factors that stay in range.
    return g * c.scale * sqrtf(mean / own[at / f.cols]) * (1.0f / sqrtf(own[f.rows + at % f.cols]));
}

// Squares of the updates of each task.
extern "C" __global__ void et_adafactor_squares(const EtTask* tasks, const EtFactored* params, EtFactoring c, const float* g,
                                                const float* state, const float* means, double* squares) {
    EtTask task = tasks[blockIdx.x];
    EtFactored f = params[task.param];
    float mean = f.cols == 0 ? 1.0f : means[task.param];
    double sum = 0.0;
    for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
        double u = et_update(f, c, state, mean, task.start - f.start + i, g[task.start + i]);
        sum += u * u;
    }
    sum = et_block_sum(sum);
    if (threadIdx.x == 0) {
        squares[blockIdx.x] = sum;
    }
}

// p = keep p - rate u / max(1, rms(u) / clip).
extern "C" __global__ void et_adafactor_apply(const EtTask* tasks, const EtFactored* params, EtFactoring c, const float* g,
                                              const float* state, const float* means, const double* squares, float* p, EtCopies copies) {
    EtTask task = tasks[blockIdx.x];
    EtFactored f = params[task.param];
    float mean = f.cols == 0 ? 1.0f : means[task.param];
    double sum = 0.0;
    for (uint32_t i = 0; i < f.tasks; ++i) {
        sum += squares[f.first_task + i];
    }
    double len = f.cols == 0 ? (double)f.rows : (double)f.rows * f.cols;
    float ratio = (float)sqrt(sum / len) / c.clip;
    // A NaN stays one.
    float rate = f.rate / (ratio < 1.0f ? 1.0f : ratio);
    for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
        uint64_t at = task.start + i;
        float value = p[at] * f.keep - rate * et_update(f, c, state, mean, at - f.start, g[at]);
        p[at] = value;
        et_copy(copies, at, value);
    }
}
