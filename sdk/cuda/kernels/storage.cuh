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

// Elements that are read or written at once.
template <typename T, int N>
struct alignas(N * sizeof(T)) EtGroup {
    T x[N];
};

// Whether p may be the address of a group.
template <int N, typename T>
__device__ __forceinline__ bool et_is_group(const T* p) {
    return ((uintptr_t)p & (N * sizeof(T) - 1)) == 0;
}

// Four elements from an address that allows it.
template <typename T>
__device__ __forceinline__ void et_read4(const T* p, float (&out)[4]) {
    EtGroup<T, 4> four = *(const EtGroup<T, 4>*)p;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        out[j] = et_wide(four.x[j]);
    }
}

// Elements at .. at + 3; those from `end` on are 0.
template <typename T>
__device__ __forceinline__ void et_load4(const T* p, uint64_t at, uint64_t end, float (&out)[4]) {
    if (at + 4 <= end && et_is_group<4>(p + at)) {
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
    if (at + 4 <= end && et_is_group<4>(p + at)) {
        EtGroup<T, 4> four;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            four.x[j] = et_narrow<T>(in[j]);
        }
        *(EtGroup<T, 4>*)(p + at) = four;
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if (at + j < end) {
            p[at + j] = et_narrow<T>(in[j]);
        }
    }
}

// Elements at .. at + 7 as two fours. With WHOLE all lie before `end` and p + at is the address of a group of eight:
// one access without a branch, so that several can be under way.
template <bool WHOLE, typename T>
__device__ __forceinline__ void et_load8(const T* p, uint64_t at, uint64_t end, float (&out)[2][4]) {
    if constexpr (WHOLE) {
        EtGroup<T, 8> eight = *(const EtGroup<T, 8>*)(p + at);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            out[j / 4][j % 4] = et_wide(eight.x[j]);
        }
    } else {
        et_load4(p, at, end, out[0]);
        et_load4(p, at + 4, end, out[1]);
    }
}

template <bool WHOLE, typename T>
__device__ __forceinline__ void et_store8(T* p, uint64_t at, uint64_t end, const float (&in)[2][4]) {
    if constexpr (WHOLE) {
        EtGroup<T, 8> eight;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            eight.x[j] = et_narrow<T>(in[j / 4][j % 4]);
        }
        *(EtGroup<T, 8>*)(p + at) = eight;
    } else {
        et_store4(p, at, end, in[0]);
        et_store4(p, at + 4, end, in[1]);
    }
}

// Eight narrow elements as they are stored: half the registers that their values would take.
struct alignas(16) EtEight {
    uint32_t word[4];
};

// The values of the first or second four.
template <typename T>
__device__ __forceinline__ void et_widen4(const EtEight& eight, int half, float (&out)[4]) {
    EtGroup<T, 4> four;
    __builtin_memcpy(&four, eight.word + 2 * half, sizeof four);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        out[j] = et_wide(four.x[j]);
    }
}

template <typename T>
__device__ __forceinline__ void et_narrow4(const float (&in)[4], EtEight& eight, int half) {
    EtGroup<T, 4> four;
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

// Floats of a row of the shared memory of et_fold_columns: four columns for each of 32 threads, and room against bank
// conflicts.
#define ET_FOLD 132

// out [cols] = the sums of four columns of each thread over the eight rows of a block of 32 x 8 threads, in the order
// of the rows. Columns begin at `col`. Called by all threads of the block.
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
