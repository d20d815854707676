// Stands in for a card: runs a kernel's blocks one after the other, and the threads of a block as fibers that take
// turns at barriers and shuffles. Slow, and exact in everything but the rounding of tensor cores' sums.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

struct EtIndex {
    unsigned x, y, z;
};

struct EtFiber {
    ucontext_t context;
    std::vector<char> stack;
    EtIndex index;
    unsigned number;
    // 0 runs, 1 waits for its warp, 2 for its block, 3 has ended.
    int state;
    // Shuffles so far; the parity picks the exchange buffer.
    unsigned shuffles;
};

static ucontext_t et_scheduler;
static EtFiber *et_current;
static EtIndex blockIdx, blockDim, gridDim;
static double et_exchange[2][1024];
static std::vector<char> et_dynamic_memory(256 * 1024 + 128);
static std::function<void()> et_body;

#define threadIdx (et_current->index)
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define ET_DYNAMIC(type, name) type *name = (type *)(((uintptr_t)et_dynamic_memory.data() + 127) / 128 * 128)

static void et_wait(int state) {
    et_current->state = state;
    swapcontext(&et_current->context, &et_scheduler);
}

static void __syncthreads() { et_wait(2); }

template <typename F>
static F __shfl_xor_sync(unsigned, F value, int step) {
    EtFiber *self = et_current;
    double *buffer = et_exchange[self->shuffles++ % 2];
    buffer[self->number] = (double)value;
    et_wait(1);
    return (F)buffer[self->number ^ (unsigned)step];
}

static void et_enter() {
    et_body();
    et_current->state = 3;
    swapcontext(&et_current->context, &et_scheduler);
}

static void et_run_block(unsigned threads) {
    static std::vector<EtFiber> fibers(1024);
    for (unsigned i = 0; i < threads; ++i) {
        EtFiber &fiber = fibers[i];
        fiber.stack.resize(64 * 1024);
        fiber.index = {i % blockDim.x, i / blockDim.x, 0};
        fiber.number = i;
        fiber.state = 0;
        fiber.shuffles = 0;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, et_enter, 0);
    }
    for (;;) {
        bool ran = false;
        for (unsigned i = 0; i < threads; ++i) {
            if (fibers[i].state == 0) {
                et_current = &fibers[i];
                swapcontext(&et_scheduler, &fibers[i].context);
                ran = true;
            }
        }
        unsigned ended = 0, at_block = 0;
        for (unsigned warp = 0; warp < threads; warp += 32) {
            unsigned lanes = threads - warp < 32 ? threads - warp : 32, at_warp = 0, gone = 0;
            for (unsigned i = warp; i < warp + lanes; ++i) {
                at_warp += fibers[i].state == 1;
                at_block += fibers[i].state == 2;
                gone += fibers[i].state == 3;
            }
            ended += gone;
            if (at_warp > 0 && at_warp + gone == lanes) {
                for (unsigned i = warp; i < warp + lanes; ++i) {
                    fibers[i].state = fibers[i].state == 1 ? 0 : fibers[i].state;
                }
                ran = true;
            }
        }
        if (ended == threads) {
            return;
        }
        if (at_block > 0 && at_block + ended == threads) {
            for (unsigned i = 0; i < threads; ++i) {
                fibers[i].state = fibers[i].state == 2 ? 0 : fibers[i].state;
            }
            ran = true;
        }
        if (!ran) {
            std::fprintf(stderr, "deadlock: threads wait for different things\n");
            std::abort();
        }
    }
}

// Runs a kernel: et_launch(grid x, grid y, block x, block y, [&] { kernel(arguments); }).
static void et_launch(unsigned gx, unsigned gy, unsigned bx, unsigned by, std::function<void()> body) {
    et_body = body;
    gridDim = {gx, gy, 1};
    blockDim = {bx, by, 1};
    for (unsigned y = 0; y < gy; ++y) {
        for (unsigned x = 0; x < gx; ++x) {
            blockIdx = {x, y, 0};
            // What a block before left in shared memory must not matter.
            std::memset(et_dynamic_memory.data(), 0xff, et_dynamic_memory.size());
            et_run_block(bx * by);
        }
    }
}

struct float2 {
    float x, y;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
struct float4 {
    float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int min(int a, int b) { return a < b ? a : b; }

// bfloat16 and half precision, rounded to nearest even.
struct __nv_bfloat16 {
    uint16_t bits;
};
struct __half {
    uint16_t bits;
};
static inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
static inline __half __float2half_rn(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) {
        return {(uint16_t)(sign | 0x7e00u)};
    }
    // From 65520 on, what rounds to 65536 is an infinity.
    if (size >= 0x477ff000u) {
        return {(uint16_t)(sign | 0x7c00u)};
    }
    // Below 2^-14 elements are multiples of 2^-24.
    if (size < 0x38800000u) {
        return {(uint16_t)(sign | (uint32_t)std::nearbyint(std::fabs(x) * 16777216.0f))};
    }
    return {(uint16_t)(sign | ((size + 0xfffu + (size >> 13 & 1) - 0x38000000u) >> 13))};
}
static inline float et_wide(__nv_bfloat16 x) {
    uint32_t bits = (uint32_t)x.bits << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}
static inline float et_wide(__half x) {
    uint32_t exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023u;
    float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                                : std::ldexp((float)(exponent ? mantissa + 1024 : mantissa), (int)(exponent ? exponent : 1) - 25);
    return x.bits & 0x8000u ? -size : size;
}
static inline float et_wide(float x) { return x; }

// Tensor cores and copies, as in kernels/tensor_cores.cuh: lanes tell each other where their rows are and what they
// hold.
template <typename T>
static T et_narrow(float x);
struct EtLane {
    const void *row;
    uint32_t a[4], b[2];
};
static EtLane et_lanes[2][1024];

// What the lanes of this warp say at once.
static const EtLane *et_tell(const EtLane &own) {
    EtFiber *self = et_current;
    EtLane *lanes = et_lanes[self->shuffles++ % 2];
    lanes[self->number] = own;
    et_wait(1);
    return lanes + self->number / 32 * 32;
}

template <typename T>
static uint32_t et_pair(float low, float high) {
    return (uint32_t)et_narrow<T>(high).bits << 16 | et_narrow<T>(low).bits;
}

static inline float et_exp2(float x) { return exp2f(x); }

template <typename T>
static float et_half_of(uint32_t pair, int high) {
    T x = {(uint16_t)(pair >> 16 * high)};
    return et_wide(x);
}

template <typename T>
static void et_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    EtLane own = {nullptr, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    int lane = et_current->number % 32;
    const EtLane *lanes = et_tell(own);
    for (int i = 0; i < 4; ++i) {
        int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) {
            const EtLane &left = lanes[row % 8 * 4 + k % 8 / 2], &right = lanes[col * 4 + k % 8 / 2];
            c[i] += et_half_of<T>(left.a[k / 8 * 2 + row / 8], k % 2) * et_half_of<T>(right.b[k / 8], k % 2);
        }
    }
}

template <bool transposed, typename T>
static void et_matrices(uint32_t (&out)[4], const T *row) {
    if ((uintptr_t)row % 16 != 0) {
        std::fprintf(stderr, "a row of a matrix is not aligned\n");
        std::abort();
    }
    int lane = et_current->number % 32;
    const EtLane *lanes = et_tell({row, {}, {}});
    for (int i = 0; i < 4; ++i) {
        uint32_t pair[2];
        for (int j = 0; j < 2; ++j) {
            int line = transposed ? lane % 4 * 2 + j : lane / 4, col = transposed ? lane / 4 : lane % 4 * 2 + j;
            pair[j] = ((const T *)lanes[8 * i + line].row)[col].bits;
        }
        out[i] = pair[1] << 16 | pair[0];
    }
}

template <int BYTES>
static void et_copy(void *to, const void *from, bool inside) {
    if (((uintptr_t)to | (uintptr_t)from) % BYTES != 0) {
        std::fprintf(stderr, "a copy is not aligned\n");
        std::abort();
    }
    if (inside) {
        std::memcpy(to, from, BYTES);
    } else {
        std::memset(to, 0, BYTES);
    }
}
static inline void et_copies_end() {}
template <int N>
static void et_copies_wait() {}
