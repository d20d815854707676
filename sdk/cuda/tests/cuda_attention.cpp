// Runs the kernels of attention on the emulator and compares them with plain loops in double precision.
#define ET_EMULATE "../tests/cuda_emulator.hpp"

#include "../kernels/attention.cu"
#undef KERNELS
#include "../kernels/attention_half.cu"

#include "cuda_check.hpp"

// Kernels whose queries, keys, values and results are stored in S, gradients in G.
template <typename S, typename G>
struct Kernels {
    std::function<void(EtAttention, const EtRun *, const EtTile *, const S *, const S *, const S *, S *, float *, uint64_t *)> forward;
    std::function<void(EtAttention, const EtRun *, const EtTile *, const S *, const S *, const S *, const G *, const float *, const float *,
                       const uint64_t *, G *)>
        query;
    std::function<void(EtAttention, const EtRun *, const EtTile *, const S *, const S *, const S *, const G *, const float *, const float *,
                       const uint64_t *, G *, G *)>
        key;
    void (*delta)(uint64_t, uint32_t, const S *, const G *, float *);
    unsigned threads;
};

template <typename S, typename G>
static void attention(const char *name, Kernels<S, G> kernels, uint32_t size, bool causal, bool dropout, double tolerance) {
    const uint32_t heads = 2, width = heads * size;
    // Queries and keys of each run; the last has queries without keys. Two have three tiles, so that memory for two
    // is used again.
    const uint32_t lens[][2] = {{5, 5}, {70, 67}, {9, 139}, {133, 12}, {0, 3}, {1, 1}, {2, 0}};
    std::vector<EtRun> runs;
    std::vector<EtTile> query_tiles, key_tiles;
    uint32_t queries = 0, keys = 0;
    for (const auto &len : lens) {
        EtRun run = {queries, len[0], keys, len[1]};
        for (uint32_t at = 0; at < len[0]; at += TILE) {
            query_tiles.push_back({(uint32_t)runs.size(), at});
        }
        for (uint32_t at = 0; at < len[1]; at += TILE) {
            key_tiles.push_back({(uint32_t)runs.size(), at});
        }
        runs.push_back(run);
        queries += len[0];
        keys += len[1];
    }
    // Rows of a wider matrix, as thirds of a fused projection.
    const uint32_t step = width + 8;
    std::vector<S> qs = stored<S>(numbers(queries * step, 1)), ks = stored<S>(numbers(keys * step, 2)), vs = stored<S>(numbers(keys * step, 3));
    std::vector<G> dos = stored<G>(numbers(queries * width, 4));
    Floats q = values(qs), k = values(ks), v = values(vs), d_o = values(dos);
    EtAttention a = {heads, size, step, step, step, 140, causal, dropout, 0.4f, 3, {3, 4, 6, 858993459u, 1.25f}};
    Doubles eo(queries * width, 0.0), elog(queries * heads, -INFINITY), eq(queries * width, 0.0), ek(keys * width, 0.0), ev = ek;
    for (const EtRun &run : runs) {
        for (uint32_t h = 0; h < heads; ++h) {
            for (uint32_t i = 0; i < run.queries; ++i) {
                uint32_t t = run.query + i;
                int seen = causal ? (int)i + 1 + (int)run.keys - (int)run.queries : (int)run.keys;
                if (seen <= 0) {
                    continue;
                }
                Doubles p(seen), f(seen), dp(seen);
                double sum = 0.0, level = 0.0;
                for (int j = 0; j < seen; ++j) {
                    double score = 0.0;
                    for (uint32_t c = 0; c < size; ++c) {
                        score += (double)q[t * step + h * size + c] * k[(run.key + j) * step + h * size + c];
                        dp[j] += (double)d_o[t * width + h * size + c] * v[(run.key + j) * step + h * size + c];
                    }
                    p[j] = std::exp(score * (double)a.scale);
                    sum += p[j];
                    f[j] = dropout ? et_dropout1(a.dropout, ((uint64_t)t * heads + h) * a.row_len + j) : 1.0;
                }
                elog[t * heads + h] = std::log(sum);
                for (int j = 0; j < seen; ++j) {
                    p[j] /= sum;
                    dp[j] *= f[j];
                    level += p[j] * dp[j];
                }
                for (int j = 0; j < seen; ++j) {
                    double ds = p[j] * (dp[j] - level) * (double)a.scale;
                    for (uint32_t c = 0; c < size; ++c) {
                        uint32_t own = t * width + h * size + c, other = (run.key + j) * width + h * size + c;
                        eo[own] += p[j] * f[j] * v[(run.key + j) * step + h * size + c];
                        ev[other] += p[j] * f[j] * d_o[own];
                        eq[own] += ds * k[(run.key + j) * step + h * size + c];
                        ek[other] += ds * q[t * step + h * size + c];
                    }
                }
            }
        }
    }
    std::vector<S> o = stored<S>(Floats(queries * width, NONE));
    std::vector<G> dq = stored<G>(Floats(queries * width, NONE)), dk = stored<G>(Floats(keys * width, NONE)), dv = dk;
    Floats lse(queries * heads, NONE), delta(queries * heads, NONE);
    std::vector<uint64_t> mask(queries * heads * a.mask_words, 0x5555555555555555u);
    unsigned tiles = (unsigned)query_tiles.size();
    et_launch(tiles, heads, kernels.threads, 1, [&] {
        kernels.forward(a, runs.data(), query_tiles.data(), qs.data(), ks.data(), vs.data(), o.data(), lse.data(), mask.data());
    });
    compare(name, values(o), eo, tolerance);
    compare("  log of sums", lse, elog, tolerance);
    et_launch(blocks(queries * heads, 8), 1, 256, 1, [&] { kernels.delta(queries * heads, size, o.data(), dos.data(), delta.data()); });
    et_launch(tiles, heads, kernels.threads, 1, [&] {
        kernels.query(a, runs.data(), query_tiles.data(), qs.data(), ks.data(), vs.data(), dos.data(), lse.data(), delta.data(), mask.data(),
                      dq.data());
    });
    compare("  queries", values(dq), eq, 2.0 * tolerance);
    et_launch((unsigned)key_tiles.size(), heads, kernels.threads, 1, [&] {
        kernels.key(a, runs.data(), key_tiles.data(), qs.data(), ks.data(), vs.data(), dos.data(), lse.data(), delta.data(), mask.data(),
                    dk.data(), dv.data());
    });
    compare("  keys", values(dk), ek, 2.0 * tolerance);
    compare("  values", values(dv), ev, 2.0 * tolerance);
}

// The kernels of f32 draw dropout's decisions again.
#define SINGLE(D)                                                                                                                          \
    {[](auto a, auto runs, auto tiles, auto q, auto k, auto v, auto o, auto lse, auto) {                                                   \
         et_attention_forward_##D(a, runs, tiles, q, k, v, o, lse);                                                                        \
     },                                                                                                                                    \
     [](auto a, auto runs, auto tiles, auto q, auto k, auto v, auto d_o, auto lse, auto delta, auto, auto dq) {                            \
         et_attention_query_##D(a, runs, tiles, q, k, v, d_o, lse, delta, dq);                                                             \
     },                                                                                                                                    \
     [](auto a, auto runs, auto tiles, auto q, auto k, auto v, auto d_o, auto lse, auto delta, auto, auto dk, auto dv) {                   \
         et_attention_key_##D(a, runs, tiles, q, k, v, d_o, lse, delta, dk, dv);                                                           \
     },                                                                                                                                    \
     et_attention_delta,                                                                                                                   \
     256}
#define HALF(name, D)                                                                                                                      \
    {et_attention_forward_##name##_##D, et_attention_query_##name##_##D, et_attention_key_##name##_##D, et_attention_delta_##name, THREADS}

int main() {
    typedef Kernels<float, float> F32;
    typedef Kernels<__nv_bfloat16, __nv_bfloat16> Bf16;
    typedef Kernels<__half, __nv_bfloat16> F16;
    for (int variant = 0; variant < 3; ++variant) {
        bool causal = variant == 1, dropout = variant == 2;
        attention("attention 20", F32 SINGLE(32), 20, causal, dropout, 2e-5);
        attention("attention 64", F32 SINGLE(64), 64, causal, dropout, 2e-5);
        attention("attention bf16 32", Bf16 HALF(bf16, 32), 32, causal, dropout, 1e-2);
    }
    attention("attention 96", F32 SINGLE(96), 96, false, true, 2e-5);
    attention("attention 128", F32 SINGLE(128), 128, true, false, 2e-5);
    attention("attention bf16 64", Bf16 HALF(bf16, 64), 64, true, true, 1e-2);
    // A head whose rows are not read eight elements at once.
    attention("attention bf16 20", Bf16 HALF(bf16, 32), 20, false, false, 1e-2);
    attention("attention f16 80", F16 HALF(f16, 96), 80, false, false, 1e-2);
    attention("attention f16 128", F16 HALF(f16, 128), 128, false, true, 1e-2);
    std::printf("%d failed\n", failed);
    return failed;
}
