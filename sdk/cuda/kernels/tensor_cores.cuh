// Instructions of tensor cores and copies to shared memory that go on while a block computes (PTX: mma, ldmatrix and
// cp.async, from sm_80 on). cuda_emulator.hpp has their twins.
//
// Where lane l = 4 g + t of a warp has its elements: of a result [16][8] rows g (0, 1) and g + 8 (2, 3), columns 2 t
// and 2 t + 1; of a matrix [8][8] row g, columns 2 t and 2 t + 1, the first in the low half of the word.
#pragma once

#include "storage.cuh"

#ifdef __CUDACC__
// Two rounded elements, the first in the low half.
template <typename T>
__device__ __forceinline__ uint32_t et_pair(float low, float high);
template <>
__device__ __forceinline__ uint32_t et_pair<__nv_bfloat16>(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *(uint32_t*)&pair;
}
template <>
__device__ __forceinline__ uint32_t et_pair<__half>(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *(uint32_t*)&pair;
}

// 2^x to 2 ulp; denormal results are zeros.
__device__ __forceinline__ float et_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// c [16][8] += a [16][16] b [16][8]; a is made of the matrices (rows 0, 8) x (columns 0, 8) in that order, columns
// slowest, b^T of two.
template <typename T>
__device__ __forceinline__ void et_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void et_mma<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void et_mma<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices [8][8] from shared memory, or their transposes; lane 8 i + r says where the 16 bytes of row r of
// matrix i are.
template <bool transposed, typename T>
__device__ __forceinline__ void et_matrices(uint32_t (&out)[4], const T* row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (transposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at));
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at));
    }
}

// Begins to copy BYTES (4, 8 or 16, and aligned so) to shared memory, or writes zeros there.
template <int BYTES>
__device__ __forceinline__ void et_copy(void* to, const void* from, bool inside) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(BYTES), "r"(inside ? BYTES : 0) : "memory");
}
// Ends a group of copies.
__device__ __forceinline__ void et_copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for this thread's copies but those of the last N groups.
template <int N>
__device__ __forceinline__ void et_copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#endif
