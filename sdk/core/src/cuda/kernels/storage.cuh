// Elements that are stored as f32, bfloat16 or half precision. All arithmetic is in f32; only what is kept is narrow.
#pragma once

#include "common.cuh"

#ifdef __CUDACC__
__device__ __forceinline__ float et_wide(float x) { return x; }
__device__ __forceinline__ float et_wide(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float et_wide(__half x) { return __half2float(x); }
#endif

template <typename T>
__device__ __forceinline__ T et_narrow(float x);
template <>
__device__ __forceinline__ float et_narrow<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 et_narrow<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half et_narrow<__half>(float x) {
    return __float2half_rn(x);
}

// Four elements that are read or written at once.
template <typename T>
struct alignas(4 * sizeof(T)) EtFour {
    T x[4];
};

template <typename T>
__device__ __forceinline__ bool et_is_four(const T* p) {
    return ((uintptr_t)p & (4 * sizeof(T) - 1)) == 0;
}

// Four elements from an address that allows it.
template <typename T>
__device__ __forceinline__ void et_read4(const T* p, float (&out)[4]) {
    EtFour<T> four = *(const EtFour<T>*)p;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        out[j] = et_wide(four.x[j]);
    }
}

// Elements at .. at + 3; those from `end` on are 0.
template <typename T>
__device__ __forceinline__ void et_load4(const T* p, uint64_t at, uint64_t end, float (&out)[4]) {
    if (at + 4 <= end && et_is_four(p + at)) {
        et_read4(p + at, out);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        out[j] = at + j < end ? et_wide(p[at + j]) : 0.0f;
    }
}

// Writes elements at .. at + 3 that lie before `end`.
template <typename T>
__device__ __forceinline__ void et_store4(T* p, uint64_t at, uint64_t end, const float (&in)[4]) {
    if (at + 4 <= end && et_is_four(p + at)) {
        EtFour<T> four;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            four.x[j] = et_narrow<T>(in[j]);
        }
        *(EtFour<T>*)(p + at) = four;
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if (at + j < end) {
            p[at + j] = et_narrow<T>(in[j]);
        }
    }
}

// Eight narrow elements as they are stored: half the registers that their values would take.
struct alignas(16) EtEight {
    uint32_t word[4];
};

// The values of the first or second four.
template <typename T>
__device__ __forceinline__ void et_widen4(const EtEight& eight, int half, float (&out)[4]) {
    EtFour<T> four;
    __builtin_memcpy(&four, eight.word + 2 * half, sizeof four);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        out[j] = et_wide(four.x[j]);
    }
}

template <typename T>
__device__ __forceinline__ void et_narrow4(const float (&in)[4], EtEight& eight, int half) {
    EtFour<T> four;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        four.x[j] = et_narrow<T>(in[j]);
    }
    __builtin_memcpy(eight.word + 2 * half, &four, sizeof four);
}

// The value that a reader of the stored element will see.
template <typename T>
__device__ __forceinline__ float et_rounded(float x) {
    return et_wide(et_narrow<T>(x));
}

// Floats of a row of the shared memory of et_fold_columns: four columns for each of 32 threads, and room against bank conflicts.
#define ET_FOLD 132

// out [cols] = the sums of four columns of each thread over the eight rows of a block of 32 x 8 threads, in the order of the rows. Columns
// begin at `col`. Called by all threads of the block.
__device__ __forceinline__ void et_fold_columns(float (&part)[8][ET_FOLD], float (&sum)[4], uint64_t col, uint64_t cols, float* out) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        part[threadIdx.y][4 * threadIdx.x + j] = sum[j];
    }
    __syncthreads();
    if (threadIdx.y == 0) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (col + j < cols) {
                for (int i = 1; i < 8; ++i) {
                    sum[j] += part[i][4 * threadIdx.x + j];
                }
                out[col + j] = sum[j];
            }
        }
    }
}
