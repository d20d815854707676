// Softmax, cross entropy, embedding sums, pooling over runs. One warp per row where rows are reduced.
#include "storage.cuh"

extern "C" __global__ void et_softmax_forward(uint64_t rows, uint64_t cols, int log, const float* x, float* y) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (row >= rows) {
        return;
    }
    const float* in = x + row * cols;
    EtSoftmax state = {-INFINITY, 0.0f};
    for (uint64_t at = lane; at < cols; at += 32) {
        EtSoftmax one = {in[at], 1.0f};
        state = et_softmax_join(state, one);
    }
    state = et_warp_join(state);
    float normalizer = logf(state.sum), inverse = 1.0f / state.sum;
    for (uint64_t at = lane; at < cols; at += 32) {
        float away = in[at] - state.largest;
        y[row * cols + at] = log ? away - normalizer : expf(away) * inverse;
    }
}

extern "C" __global__ void et_softmax_backward(uint64_t rows, uint64_t cols, int log, const float* y, const float* dy, float* dx) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (row >= rows) {
        return;
    }
    float sum = 0.0f;
    for (uint64_t at = row * cols + lane; at < (row + 1) * cols; at += 32) {
        sum += log ? dy[at] : dy[at] * y[at];
    }
    sum = et_warp_sum(sum);
    for (uint64_t at = row * cols + lane; at < (row + 1) * cols; at += 32) {
        dx[at] = log ? dy[at] - expf(y[at]) * sum : y[at] * (dy[at] - sum);
    }
}

// Per row: the logarithm of the sum of exponentials, and loss and weight (0 for ignored rows).
template <typename T>
__device__ __forceinline__ void cross_entropy_rows(uint64_t rows, uint64_t cols, int64_t ignore, float smoothing, const T* x,
                                                   const int64_t* labels, const float* weights, float* log_sums, float* losses) {
    uint64_t row = blockIdx.x * 8ull + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (row >= rows) {
        return;
    }
    const T* in = x + row * cols;
    EtSoftmax state = {-INFINITY, 0.0f};
    float sum = 0.0f;
    for (uint64_t at = lane; at < cols; at += 32) {
        EtSoftmax one = {et_wide(in[at]), 1.0f};
        state = et_softmax_join(state, one);
        sum += et_wide(in[at]);
    }
    state = et_warp_join(state);
    sum = et_warp_sum(sum);
    if (lane == 0) {
        float normalizer = state.largest + logf(state.sum);
        log_sums[row] = normalizer;
        float loss = 0.0f;
        if (labels[row] != ignore) {
            loss = (1.0f - smoothing) * (normalizer - et_wide(in[labels[row]]));
            if (smoothing > 0.0f) {
                loss += smoothing * (normalizer - sum / (float)cols);
            }
            if (weights) {
                loss *= weights[row];
            }
        }
        losses[row] = loss;
    }
}

// loss = sum(losses) / sum(weights), inverse = 1 / sum(weights), both 0 when the weights sum to 0. One block of 256
// threads.
extern "C" __global__ void et_cross_entropy_mean(uint64_t rows, int64_t ignore, const int64_t* labels, const float* weights,
                                                 const float* losses, float* loss, float* inverse) {
    double total = 0.0, weight = 0.0;
    for (uint64_t row = threadIdx.x; row < rows; row += blockDim.x) {
        if (labels[row] != ignore) {
            total += losses[row];
            weight += weights ? weights[row] : 1.0f;
        }
    }
    total = et_block_sum(total);
    weight = et_block_sum(weight);
    if (threadIdx.x == 0) {
        *loss = weight == 0.0 ? 0.0f : (float)(total / weight);
        *inverse = weight == 0.0 ? 0.0f : (float)(1.0 / weight);
    }
}

// dx = dloss (softmax - target) w / sum(w); probabilities are made again and never stored.
template <typename T, typename G>
__device__ __forceinline__ void cross_entropy_backward(uint64_t cols, int64_t ignore, float smoothing, const T* x, const int64_t* labels,
                                                       const float* weights, const float* log_sums, const float* dloss,
                                                       const float* inverse, G* dx) {
    uint64_t row = blockIdx.x;
    int64_t label = labels[row];
    float scale = label == ignore ? 0.0f : *dloss * *inverse * (weights ? weights[row] : 1.0f);
    float spread = smoothing / (float)cols;
    float normalizer = log_sums[row];
    for (uint64_t at = threadIdx.x; at < cols; at += blockDim.x) {
        float target = spread + ((int64_t)at == label ? 1.0f - smoothing : 0.0f);
        float slope = label == ignore ? 0.0f : (expf(et_wide(x[row * cols + at]) - normalizer) - target) * scale;
        dx[row * cols + at] = et_narrow<G>(slope);
    }
}

#define KERNELS(name, T, G)                                                                                                             \
    extern "C" __global__ void et_cross_entropy_rows##name(uint64_t rows, uint64_t cols, int64_t ignore, float smoothing, const T* x,   \
                                                           const int64_t* labels, const float* weights, float* log_sums,                \
                                                           float* losses) {                                                             \
        cross_entropy_rows(rows, cols, ignore, smoothing, x, labels, weights, log_sums, losses);                                        \
    }                                                                                                                                   \
    extern "C" __global__ void et_cross_entropy_backward##name(uint64_t rows, uint64_t cols, int64_t ignore, float smoothing,           \
                                                               const T* x, const int64_t* labels, const float* weights,                 \
                                                               const float* log_sums, const float* dloss, const float* inverse,         \
                                                               G* dx) {                                                                 \
        cross_entropy_backward(cols, ignore, smoothing, x, labels, weights, log_sums, dloss, inverse, dx);                              \
    }
KERNELS(, float, float)
KERNELS(_bf16, __nv_bfloat16, __nv_bfloat16)
KERNELS(_f16, __half, __nv_bfloat16)
#undef KERNELS

#define ET_TABLES 4
struct EtTables {
    const float* table[ET_TABLES];
    const int64_t* ids[ET_TABLES];
};

// y [positions, width] (+)= the sum of `count` table rows.
template <typename T>
__device__ __forceinline__ void embedding_forward(uint64_t width, int count, int add, const EtTables& tables, T* y) {
    uint64_t position = blockIdx.x;
    for (uint64_t at = threadIdx.x; at < width; at += blockDim.x) {
        float sum = add ? et_wide(y[position * width + at]) : 0.0f;
        for (int k = 0; k < count; ++k) {
            sum += tables.table[k][(uint64_t)tables.ids[k][position] * width + at];
        }
        y[position * width + at] = et_narrow<T>(sum);
    }
}

// Sums the rows `order[first..last]` of dy for each piece: partial [pieces, width]. `starts` [pieces + 1].
template <typename G>
__device__ __forceinline__ void embedding_pieces(uint64_t width, const uint32_t* starts, const uint32_t* order, const G* dy,
                                                 float* partial) {
    uint64_t piece = blockIdx.x;
    uint32_t first = starts[piece], last = starts[piece + 1];
    for (uint64_t at = threadIdx.x; at < width; at += blockDim.x) {
        float sum = 0.0f;
        for (uint32_t i = first; i < last; ++i) {
            sum += et_wide(dy[(uint64_t)order[i] * width + at]);
        }
        partial[piece * width + at] = sum;
    }
}

#define FORWARD(name, T)                                                                                                                \
    extern "C" __global__ void et_embedding_forward##name(uint64_t width, int count, int add, EtTables tables, T* y) {                  \
        embedding_forward(width, count, add, tables, y);                                                                                \
    }
FORWARD(, float)
FORWARD(_bf16, __nv_bfloat16)
FORWARD(_f16, __half)
#undef FORWARD

#define PIECES(name, G)                                                                                                                 \
    extern "C" __global__ void et_embedding_pieces##name(uint64_t width, const uint32_t* starts, const uint32_t* order, const G* dy,    \
                                                         float* partial) {                                                              \
        embedding_pieces(width, starts, order, dy, partial);                                                                            \
    }
PIECES(, float)
PIECES(_bf16, __nv_bfloat16)
#undef PIECES

// dtable[ids[u]] += the sums of the pieces of id u in their order. `pieces` [ids + 1].
extern "C" __global__ void et_embedding_finish(uint64_t width, const uint32_t* pieces, const uint32_t* ids, const float* partial,
                                               float* dtable) {
    uint64_t u = blockIdx.x;
    uint32_t first = pieces[u], last = pieces[u + 1];
    float* out = dtable + (uint64_t)ids[u] * width;
    for (uint64_t at = threadIdx.x; at < width; at += blockDim.x) {
        float sum = 0.0f;
        for (uint32_t i = first; i < last; ++i) {
            sum += partial[(uint64_t)i * width + at];
        }
        out[at] += sum;
    }
}

// One vector per run: 1 mean, 2 first, 3 maximum; an empty run gives zeros.
template <typename T>
__device__ __forceinline__ void pool_forward(int kind, uint64_t width, const int64_t* starts, const T* x, float* y) {
    uint64_t run = blockIdx.x;
    uint64_t first = (uint64_t)starts[run], last = (uint64_t)starts[run + 1];
    for (uint64_t at = threadIdx.x; at < width; at += blockDim.x) {
        float value = 0.0f;
        if (last > first) {
            value = et_wide(x[first * width + at]);
            if (kind != 2) {
                for (uint64_t row = first + 1; row < last; ++row) {
                    float next = et_wide(x[row * width + at]);
                    value = kind == 1 ? value + next : (next > value ? next : value);
                }
            }
            if (kind == 1) {
                value /= (float)(last - first);
            }
        }
        y[run * width + at] = value;
    }
}

// Every element of dx is written.
template <typename T, typename G>
__device__ __forceinline__ void pool_backward(int kind, uint64_t width, const int64_t* starts, const T* x, const float* dy, G* dx) {
    uint64_t run = blockIdx.x;
    uint64_t first = (uint64_t)starts[run], last = (uint64_t)starts[run + 1];
    for (uint64_t at = threadIdx.x; at < width; at += blockDim.x) {
        float g = dy[run * width + at];
        uint64_t best = first;
        if (kind == 3) {
            for (uint64_t row = first + 1; row < last; ++row) {
                best = et_wide(x[row * width + at]) > et_wide(x[best * width + at]) ? row : best;
            }
        }
        for (uint64_t row = first; row < last; ++row) {
            dx[row * width + at] = et_narrow<G>(kind == 1 ? g / (float)(last - first) : (row == best ? g : 0.0f));
        }
    }
}

#define KERNELS(name, T, G)                                                                                                             \
    extern "C" __global__ void et_pool_forward##name(int kind, uint64_t width, const int64_t* starts, const T* x, float* y) {           \
        pool_forward(kind, width, starts, x, y);                                                                                        \
    }                                                                                                                                   \
    extern "C" __global__ void et_pool_backward##name(int kind, uint64_t width, const int64_t* starts, const T* x, const float* dy,     \
                                                      G* dx) {                                                                          \
        pool_backward(kind, width, starts, x, dy, dx);                                                                                  \
    }
KERNELS(, float, float)
KERNELS(_bf16, __nv_bfloat16, __nv_bfloat16)
KERNELS(_f16, __half, __nv_bfloat16)
#undef KERNELS
