// Elementwise operations on values that are stored in bfloat16 or half precision: activations, dropout, sums of columns, conversions.
// Every thread takes four elements at once. Gradients are bfloat16 for both, whose range is that of f32.
#include "storage.cuh"

#define EACH4(at, n)                                                                                                        \
    for (uint64_t at = 4 * (blockIdx.x * (uint64_t)blockDim.x + threadIdx.x); at < n; at += 4 * (uint64_t)gridDim.x * blockDim.x)

template <typename T>
__device__ __forceinline__ void activation(int kind, uint64_t n, const T* x, T* y) {
    EACH4(at, n) {
        float v[4];
        et_load4(x, at, n, v);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            v[j] = et_activate(kind, v[j]);
        }
        et_store4(y, at, n, v);
    }
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

// dz = dy act'(x), and the sums of its columns over blocks of `chunk` rows: partial [gridDim.y, cols]. Without x, dz is dy and not written;
// without `partial` there are no sums. Blocks of 32 x 8 threads, four columns each.
template <typename T, typename G>
__device__ __forceinline__ void slopes(int kind, uint64_t rows, uint64_t cols, uint64_t chunk, const T* x, const G* dy, G* dz,
                                       float* partial) {
    __shared__ float part[8][ET_FOLD];
    uint64_t col = 4 * (blockIdx.x * 32ull + threadIdx.x);
    uint64_t first = blockIdx.y * chunk;
    uint64_t last = first + chunk < rows ? first + chunk : rows;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (col < cols) {
        for (uint64_t row = first + threadIdx.y; row < last; row += 8) {
            uint64_t at = row * cols + col, end = (row + 1) * cols;
            float g[4];
            et_load4(dy, at, end, g);
            if (x) {
                float v[4];
                et_load4(x, at, end, v);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    g[j] *= et_derivative(kind, v[j]);
                }
                et_store4(dz, at, end, g);
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                sum[j] += g[j];
            }
        }
    }
    if (!partial) {
        return;
    }
    et_fold_columns(part, sum, col, cols, partial + blockIdx.y * cols);
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
    extern "C" __global__ void et_activation_##name(int kind, uint64_t n, const T* x, T* y) { activation(kind, n, x, y); }     \
    extern "C" __global__ void et_dropout_##name(EtDropout d, uint64_t n, const T* x, T* y) { dropout(d, n, x, y); }           \
    extern "C" __global__ void et_slopes_##name(int kind, uint64_t rows, uint64_t cols, uint64_t chunk, const T* x,            \
                                                const __nv_bfloat16* dy, __nv_bfloat16* dz, float* partial) {                  \
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
