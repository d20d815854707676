// Stands in for a card: runs a kernel's blocks one after the other, and the threads of a block as fibers that take turns at barriers and
// shuffles. Slow, and exact in everything but the rounding of tensor cores' sums.
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

// Tensor cores: every lane holds the whole matrix and computes all of it.
namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {
    static const bool rows = true;
};
struct col_major {
    static const bool rows = false;
};
enum layout_t { mem_row_major };
template <typename Use, int M, int N, int K, typename T, typename Layout = row_major>
struct fragment {
    float x[16][16];
};
template <typename F>
static void fill_fragment(F &f, float value) {
    for (auto &row : f.x) {
        for (float &x : row) {
            x = value;
        }
    }
}
template <typename Use, typename T, typename L>
static void load_matrix_sync(fragment<Use, 16, 16, 16, T, L> &f, const T *from, unsigned step) {
    if ((uintptr_t)from % 32 != 0 || step * sizeof(T) % 16 != 0) {
        std::fprintf(stderr, "a fragment is not aligned\n");
        std::abort();
    }
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 16; ++j) {
            f.x[i][j] = et_wide(L::rows ? from[i * step + j] : from[j * step + i]);
        }
    }
}
static inline void load_matrix_sync(fragment<accumulator, 16, 16, 16, float> &f, const float *from, unsigned step, layout_t) {
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 16; ++j) {
            f.x[i][j] = from[i * step + j];
        }
    }
    // The lanes of a warp move together: nobody stores before all have loaded.
    et_wait(1);
}
static inline void store_matrix_sync(float *to, const fragment<accumulator, 16, 16, 16, float> &f, unsigned step, layout_t) {
    if ((uintptr_t)to % 32 != 0 || step % 4 != 0) {
        std::fprintf(stderr, "a fragment is not aligned\n");
        std::abort();
    }
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 16; ++j) {
            to[i * step + j] = f.x[i][j];
        }
    }
    et_wait(1);
}
template <typename D, typename A, typename B, typename C>
static void mma_sync(D &d, const A &a, const B &b, const C &c) {
    float out[16][16];
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 16; ++j) {
            float sum = c.x[i][j];
            for (int k = 0; k < 16; ++k) {
                sum += a.x[i][k] * b.x[k][j];
            }
            out[i][j] = sum;
        }
    }
    std::memcpy(d.x, out, sizeof out);
}
}  // namespace wmma
