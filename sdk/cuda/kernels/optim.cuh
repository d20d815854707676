// What optimizer steps share: pieces of parameters, and the copies in fewer bits that a step keeps up to date.
#pragma once

#include "storage.cuh"

// A piece of one parameter; the same fields as `Task` of cuda/optim.rs.
struct EtTask {
    uint64_t start;
    uint32_t len;
    uint32_t param;
};

// Copies of the arena of values that matrix products read; NULL where there is none.
struct EtCopies {
    __nv_bfloat16* bf16;
    __half* f16;
};

__device__ __forceinline__ void et_copy(const EtCopies& copies, uint64_t at, float value) {
    if (copies.bf16) {
        copies.bf16[at] = et_narrow<__nv_bfloat16>(value);
    }
    if (copies.f16) {
        copies.f16[at] = et_narrow<__half>(value);
    }
}
