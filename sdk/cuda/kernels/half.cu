// Elementwise operations on values that are stored in bfloat16 or half precision: activations, dropout, sums of
// columns, conversions. Gradients are bfloat16 for both, whose range is that of f32.
#include <type_traits>

#include "storage.cuh"

// Every thread takes four elements at once.
#define EACH4(at, n)                                                                                                        \
    for (uint64_t at = 4 * (blockIdx.x * (uint64_t)blockDim.x + threadIdx.x); at < n; at += 4 * (uint64_t)gridDim.x * blockDim.x)

template <int KIND>
using Kind = std::integral_constant<int, KIND>;

// f(Kind<kind>()): loops over elements do not ask which activation it is.
template <typename F>
__device__ __forceinline__ void with_kind(int kind, F f) {
    switch (kind) {
        case ET_RELU:
            return f(Kind<ET_RELU>());
        case ET_GELU:
            return f(Kind<ET_GELU>());
        case ET_GELU_TANH:
            return f(Kind<ET_GELU_TANH>());
        case ET_TANH:
            return f(Kind<ET_TANH>());
        case ET_SIGMOID:
            return f(Kind<ET_SIGMOID>());
        case ET_SILU:
            return f(Kind<ET_SILU>());
        default:
            return f(Kind<ET_NONE>());
    }
}

template <int KIND, bool WHOLE, typename T>
__device__ __forceinline__ void activate(uint64_t n, const T* x, T* y) {
    // Two loads are under way at once.
    constexpr int GROUPS = WHOLE ? 2 : 1;
    uint64_t step = 8 * (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t at = 8 * (blockIdx.x * (uint64_t)blockDim.x + threadIdx.x); at < n; at += GROUPS * step) {
        uint64_t group[GROUPS];
        float v[GROUPS][2][4];
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) {
            // Where there is no second group, the first once more: a branch would keep the loads apart.
            group[i] = at + i * step < n ? at + i * step : at;
            et_load8<WHOLE>(x, group[i], n, v[i]);
        }
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                float& value = v[i][j / 4][j % 4];
                value = et_fast_point<KIND>(value).value;
            }
            et_store8<WHOLE>(y, group[i], n, v[i]);
        }
    }
}

template <typename T>
__device__ __forceinline__ void activation(int kind, uint64_t n, const T* x, T* y) {
    bool whole = n % 8 == 0 && et_is_group<8>(x) && et_is_group<8>(y);
    with_kind(kind, [&](auto known) {
        constexpr int KIND = decltype(known)::value;
        whole ? activate<KIND, true>(n, x, y) : activate<KIND, false>(n, x, y);
    });
}

template <typename T>
__device__ __forceinline__ void dropout(const EtDropout& d, uint64_t n, const T* x, T* y) {
    EACH4(at, n) {
        EtWords words = et_words4(d.seed, d.stream, d.offset + at);
        float v[4];
        et_load4(x, at, n, v);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            v[j] *= et_factor(d, words.w[j]);
        }
        et_store4(y, at, n, v);
    }
}

// dz = dy act'(x) in eight columns from `col` on of every eighth row of first .. last - 1, and on the way the sums of
// these columns.
template <int KIND, bool WHOLE, typename T, typename G>
__device__ __forceinline__ void slope_rows(uint64_t first, uint64_t last, uint64_t col, uint64_t cols, const T* x, const G* dy, G* dz,
                                           float (&sum)[2][4]) {
    // Four loads are under way at once.
    constexpr int ROWS = !WHOLE ? 1 : KIND == ET_NONE ? 4 : 2;
    for (uint64_t row = first; row < last; row += 8 * ROWS) {
        float g[ROWS][2][4], v[ROWS][2][4];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            // Behind the last row that one once more: a branch would keep the loads apart.
            uint64_t from = row + 8 * i < last ? row + 8 * i : last - 1;
            et_load8<WHOLE>(dy, from * cols + col, (from + 1) * cols, g[i]);
            if constexpr (KIND != ET_NONE) {
                et_load8<WHOLE>(x, from * cols + col, (from + 1) * cols, v[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            uint64_t own = row + 8 * i;
            if constexpr (KIND != ET_NONE) {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    g[i][j / 4][j % 4] *= et_fast_point<KIND>(v[i][j / 4][j % 4]).slope;
                }
            }
            if (dz && own < last) {
                et_store8<WHOLE>(dz, own * cols + col, (own + 1) * cols, g[i]);
            }
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                sum[j / 4][j % 4] += own < last ? g[i][j / 4][j % 4] : 0.0f;
            }
        }
    }
}

// dz = dy act'(x), and the sums of its columns over blocks of `chunk` rows: partial [gridDim.y, cols]. Without `dz`
// or `partial` there are only the others; ET_NONE needs no x. Blocks of 32 x 8 threads, eight columns each.
template <typename T, typename G>
__device__ __forceinline__ void slopes(int kind, uint64_t rows, uint64_t cols, uint64_t chunk, const T* x, const G* dy, G* dz,
                                       float* partial) {
    __shared__ float part[2][8][ET_FOLD];
    uint64_t col = 8 * (blockIdx.x * 32ull + threadIdx.x);
    uint64_t first = blockIdx.y * chunk + threadIdx.y;
    uint64_t last = (blockIdx.y + 1) * chunk < rows ? (blockIdx.y + 1) * chunk : rows;
    float sum[2][4] = {};
    bool whole = cols % 8 == 0 && et_is_group<8>(x) && et_is_group<8>(dy) && et_is_group<8>(dz);
    if (col < cols) {
        with_kind(kind, [&](auto known) {
            constexpr int KIND = decltype(known)::value;
            whole ? slope_rows<KIND, true>(first, last, col, cols, x, dy, dz, sum)
                  : slope_rows<KIND, false>(first, last, col, cols, x, dy, dz, sum);
        });
    }
    if (!partial) {
        return;
    }
    et_fold_columns(part[0], sum[0], col, cols, partial + blockIdx.y * cols);
    et_fold_columns(part[1], sum[1], col + 4, cols, partial + blockIdx.y * cols);
}

template <typename From, typename To>
__device__ __forceinline__ void convert(uint64_t n, const From* x, To* y) {
    EACH4(at, n) {
        float v[4];
        et_load4(x, at, n, v);
        et_store4(y, at, n, v);
    }
}

#define KERNELS(name, T)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256, 6) et_activation_##name(int kind, uint64_t n, const T* x, T* y) {        \
        activation(kind, n, x, y);                                                                                             \
    }                                                                                                                          \
    extern "C" __global__ void et_dropout_##name(EtDropout d, uint64_t n, const T* x, T* y) { dropout(d, n, x, y); }           \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                                       \
        et_slopes_##name(int kind, uint64_t rows, uint64_t cols, uint64_t chunk, const T* x, const __nv_bfloat16* dy,          \
                         __nv_bfloat16* dz, float* partial) {                                                                  \
        slopes(kind, rows, cols, chunk, x, dy, dz, partial);                                                                   \
    }
KERNELS(bf16, __nv_bfloat16)
KERNELS(f16, __half)
#undef KERNELS

#define CONVERT(from, From, to, To)                                                                                            \
    extern "C" __global__ void et_convert_##from##_##to(uint64_t n, const From* x, To* y) { convert(n, x, y); }
CONVERT(f32, float, bf16, __nv_bfloat16)
CONVERT(f32, float, f16, __half)
CONVERT(bf16, __nv_bfloat16, f32, float)
CONVERT(f16, __half, f32, float)
CONVERT(bf16, __nv_bfloat16, f16, __half)
CONVERT(f16, __half, bf16, __nv_bfloat16)
#undef CONVERT
