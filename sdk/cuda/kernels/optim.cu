// Optimizer steps, norms and scaling over arenas. A task is a piece of one parameter; sums go over tasks in their
// order.
#include "optim.cuh"

// Squares of the gradients of each task.
extern "C" __global__ void et_square_partial(const EtTask* tasks, const float* g, double* partial) {
    EtTask task = tasks[blockIdx.x];
    double sum = 0.0;
#pragma unroll 4
    for (uint32_t i = 4 * threadIdx.x; i < task.len; i += 4 * blockDim.x) {
        float x[4];
        et_load4(g, task.start + i, task.start + task.len, x);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            sum += (double)x[j] * x[j];
        }
    }
    sum = et_block_sum(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

// Sum of `n` numbers in a fixed order. One block.
extern "C" __global__ void et_sum_finish(uint64_t n, const double* partial, double* out) {
    double sum = 0.0;
    for (uint64_t i = threadIdx.x; i < n; i += blockDim.x) {
        sum += partial[i];
    }
    sum = et_block_sum(sum);
    if (threadIdx.x == 0) {
        *out = sum;
    }
}

extern "C" __global__ void et_scale_tasks(const EtTask* tasks, float factor, float* g) {
    EtTask task = tasks[blockIdx.x];
    for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
        g[task.start + i] *= factor;
    }
}

extern "C" __global__ void et_adam_step(const EtTask* tasks, const EtRates* rates, float* p, const float* g, float* m, float* v,
                                        EtCopies copies) {
    EtTask task = tasks[blockIdx.x];
    EtRates c = rates[task.param];
    for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
        uint64_t at = task.start + i;
        float value = p[at], first = m[at], second = v[at];
        et_adam(c, value, g[at], first, second);
        p[at] = value;
        m[at] = first;
        v[at] = second;
        et_copy(copies, at, value);
    }
}

// Moments, and per task the squares of parameter and update: norms [2, tasks].
extern "C" __global__ void et_lamb_moments(const EtTask* tasks, const EtRates* rates, const float* p, const float* g, float* m, float* v,
                                           double* norms) {
    EtTask task = tasks[blockIdx.x];
    EtRates c = rates[task.param];
    double parameter = 0.0, update = 0.0;
    for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
        uint64_t at = task.start + i;
        float gradient = g[at] * c.grad_scale;
        float first = m[at] * c.beta1 + gradient * c.rest1;
        float second = v[at] * c.beta2 + gradient * gradient * c.rest2;
        m[at] = first;
        v[at] = second;
        double u = et_lamb_direction(c, p[at], first, second);
        parameter += (double)p[at] * p[at];
        update += u * u;
    }
    parameter = et_block_sum(parameter);
    update = et_block_sum(update);
    if (threadIdx.x == 0) {
        norms[blockIdx.x] = parameter;
        norms[gridDim.x + blockIdx.x] = update;
    }
}

// p -= rate trust u, with the trust ratio of the task's parameter from the norms of its tasks
// `first[param]..first[param + 1]`.
extern "C" __global__ void et_lamb_apply(const EtTask* tasks, const EtRates* rates, const uint32_t* first, const double* norms, float* p,
                                         const float* m, const float* v, EtCopies copies) {
    EtTask task = tasks[blockIdx.x];
    EtRates c = rates[task.param];
    double parameter = 0.0, update = 0.0;
    for (uint32_t i = first[task.param]; i < first[task.param + 1]; ++i) {
        parameter += norms[i];
        update += norms[gridDim.x + i];
    }
    float trust = parameter > 0.0 && update > 0.0 ? (float)sqrt(parameter / update) : 1.0f;
    float rate = c.rate * trust;
    for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
        uint64_t at = task.start + i;
        p[at] -= rate * et_lamb_direction(c, p[at], m[at], v[at]);
        et_copy(copies, at, p[at]);
    }
}

// Stochastic gradient descent; with momentum m (else NULL), `fresh` is the share of the gradient that enters it and
// `first` empties it.
extern "C" __global__ void et_sgd_step(const EtTask* tasks, const EtRates* rates, float momentum, float fresh, int nesterov, int first,
                                       float* p, const float* g, float* m, EtCopies copies) {
    EtTask task = tasks[blockIdx.x];
    EtRates c = rates[task.param];
    for (uint32_t i = threadIdx.x; i < task.len; i += blockDim.x) {
        uint64_t at = task.start + i;
        float gradient = g[at] * c.grad_scale + c.l2 * p[at];
        float step = gradient;
        if (m) {
            float moment = (first ? 0.0f : momentum * m[at]) + fresh * gradient;
            m[at] = moment;
            step = nesterov ? gradient + momentum * moment : moment;
        }
        p[at] -= c.rate * step;
        et_copy(copies, at, p[at]);
    }
}
