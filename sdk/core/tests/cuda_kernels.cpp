// Runs the CUDA kernels on the emulator and compares them with plain loops in double precision. Prints one line per check; the exit code
// is the number of those that failed.
#define ET_EMULATE "../../../tests/cuda_emulator.hpp"

#include <cmath>
#include <vector>

#include "../src/cuda/kernels/elementwise.cu"
#include "../src/cuda/kernels/norm.cu"
#include "../src/cuda/kernels/optim.cu"
#include "../src/cuda/kernels/rows.cu"

#include "../src/cuda/kernels/attention.cu"
#undef KERNELS
#include "../src/cuda/kernels/attention_half.cu"

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

static int failed = 0;

static void report(const char *name, double apart, double tolerance) {
    bool good = apart <= tolerance;
    failed += !good;
    std::printf("%s %s %.2e\n", good ? "ok    " : "FAILED", name, apart);
}

// Largest difference over the largest number; a NaN is infinitely far.
static void compare(const char *name, const Floats &found, const Doubles &expected, double tolerance) {
    double apart = 0.0, largest = 1e-6;
    for (size_t i = 0; i < expected.size(); ++i) {
        if (std::isinf(expected[i])) {
            apart = found[i] == expected[i] ? apart : INFINITY;
            continue;
        }
        double away = std::fabs(found[i] - expected[i]);
        apart = std::isnan(away) ? INFINITY : std::fmax(apart, away);
        largest = std::fmax(largest, std::fabs(expected[i]));
    }
    report(name, found.size() == expected.size() ? apart / largest : INFINITY, tolerance);
}

static Floats numbers(size_t n, uint32_t seed) {
    Floats out(n);
    for (size_t i = 0; i < n; ++i) {
        EtWords words = et_block(seed, 77, i);
        out[i] = (float)(int32_t)(words.w[0] >> 8) / 8388608.0f - 1.0f;
    }
    return out;
}

static unsigned blocks(size_t n, size_t each) { return (unsigned)((n + each - 1) / each); }

static const float NONE = NAN;

static void elementwise() {
    size_t n = 1003;
    Floats x = numbers(n, 1), dy = numbers(n, 2), y(n, NONE), dx(n, NONE);
    Doubles value(n), slope(n), kept(n);
    EtDropout d = {9, 4, 6, 1288490189u, 1.0f / 0.7f};
    for (size_t i = 0; i < n; ++i) {
        double cumulative = 0.5 * std::erfc(-x[i] / std::sqrt(2.0));
        value[i] = x[i] * cumulative;
        slope[i] = dy[i] * (cumulative + x[i] * std::exp(-0.5 * x[i] * x[i]) / std::sqrt(2.0 * 3.14159265358979323846));
        kept[i] = x[i] * (double)et_dropout1(d, i);
    }
    et_launch(4, 1, 256, 1, [&] { et_activation_forward(ET_GELU, n, x.data(), y.data()); });
    compare("gelu", y, value, 1e-6);
    et_launch(4, 1, 256, 1, [&] { et_activation_backward(ET_GELU, n, x.data(), dy.data(), dx.data()); });
    compare("gelu backward", dx, slope, 1e-6);
    et_launch(1, 1, 256, 1, [&] { et_dropout(d, n, x.data(), y.data()); });
    compare("dropout", y, kept, 1e-7);
    size_t rows = 150, cols = 37, chunk = 64, parts = 3;
    Floats m = numbers(rows * cols, 3), partial(parts * cols, NONE), out = numbers(cols, 4);
    Doubles sums(cols);
    for (size_t c = 0; c < cols; ++c) {
        sums[c] = out[c];
        for (size_t r = 0; r < rows; ++r) {
            sums[c] += m[r * cols + c];
        }
    }
    et_launch(blocks(cols, 32), parts, 32, 8, [&] { et_column_partial(rows, cols, chunk, m.data(), partial.data()); });
    et_launch(1, 1, 256, 1, [&] { et_column_finish(parts, cols, 1, partial.data(), out.data()); });
    compare("column sums", out, sums, 1e-6);
}

static void norms() {
    for (size_t cols : {1, 21, 130}) {
        for (int variant = 0; variant < 4; ++variant) {
            bool rms = variant == 3, has_residual = variant == 1 || variant == 2, has_dropout = variant == 2;
            size_t rows = 11, n = rows * cols;
            Floats x = numbers(n, 1), r = numbers(n, 2), gamma = numbers(cols, 3), beta = numbers(cols, 4), dy = numbers(n, 5);
            Floats y(n, NONE), summed(n, NONE), mean(rows, NONE), rstd(rows, NONE), dx(n, NONE), dr(n, NONE);
            EtDropout d = {5, 6, 2, 429496730u, 1.0f / 0.9f};
            double eps = 1e-3;
            Doubles ey(n), edx(n), edr(n), eg(cols, 0.0), eb(cols, 0.0);
            for (size_t row = 0; row < rows; ++row) {
                Doubles s(cols), h(cols);
                double centre = 0.0, square = 0.0;
                for (size_t c = 0; c < cols; ++c) {
                    size_t at = row * cols + c;
                    s[c] = x[at] * (has_dropout ? et_dropout1(d, at) : 1.0f) + (has_residual ? r[at] : 0.0f);
                    centre += rms ? 0.0 : s[c] / (double)cols;
                }
                for (double v : s) {
                    square += (v - centre) * (v - centre) / (double)cols;
                }
                double inverse = 1.0 / std::sqrt(square + eps), level = 0.0, along = 0.0;
                for (size_t c = 0; c < cols; ++c) {
                    size_t at = row * cols + c;
                    h[c] = (s[c] - centre) * inverse;
                    ey[at] = h[c] * gamma[c] + (rms ? 0.0 : beta[c]);
                    level += rms ? 0.0 : dy[at] * gamma[c] / (double)cols;
                    along += dy[at] * gamma[c] * h[c] / (double)cols;
                    eg[c] += dy[at] * h[c];
                    eb[c] += dy[at];
                }
                for (size_t c = 0; c < cols; ++c) {
                    size_t at = row * cols + c;
                    edr[at] = inverse * (dy[at] * gamma[c] - level - h[c] * along);
                    edx[at] = edr[at] * (has_dropout ? et_dropout1(d, at) : 1.0f);
                }
            }
            float *sum = has_residual ? summed.data() : nullptr;
            et_launch(blocks(rows, 8), 1, 256, 1, [&] {
                et_norm_forward(rows, cols, has_dropout, rms, d, (float)eps, x.data(), has_residual ? r.data() : nullptr, gamma.data(),
                                rms ? nullptr : beta.data(), y.data(), sum, rms ? nullptr : mean.data(), rstd.data());
            });
            compare("norm", y, ey, 1e-5);
            const float *saved = sum ? sum : x.data();
            et_launch(blocks(rows, 8), 1, 256, 1, [&] {
                et_norm_backward(rows, cols, has_dropout, rms, d, dy.data(), saved, mean.data(), rstd.data(), gamma.data(), dx.data(),
                                 dr.data());
            });
            compare("norm dx", dx, edx, 1e-4);
            compare("norm dresidual", dr, edr, 1e-4);
            size_t chunk = 4, parts = 3;
            Floats gammas(parts * cols, NONE), betas(parts * cols, NONE), dgamma(cols, NONE), dbeta(cols, NONE);
            et_launch(blocks(cols, 32), parts, 32, 8, [&] {
                et_norm_columns(rows, cols, chunk, rms, dy.data(), saved, mean.data(), rstd.data(), gammas.data(), betas.data());
            });
            et_launch(1, 1, 256, 1, [&] { et_column_finish(parts, cols, 0, gammas.data(), dgamma.data()); });
            et_launch(1, 1, 256, 1, [&] { et_column_finish(parts, cols, 0, betas.data(), dbeta.data()); });
            compare("norm dgamma", dgamma, eg, 1e-5);
            compare("norm dbeta", dbeta, eb, 1e-5);
        }
    }
}

static void losses() {
    size_t rows = 10, cols = 45, n = rows * cols;
    Floats x = numbers(n, 1), w = numbers(rows, 2), dy = numbers(n, 3), y(n, NONE), dx(n, NONE), log_sums(rows, NONE), each(rows, NONE);
    Floats loss(1, NONE), inverse(1, NONE), dloss(1, 0.7f);
    std::vector<int64_t> labels(rows);
    double smoothing = 0.1, total = 0.0, weight = 0.0;
    Doubles soft(n), dsoft(n), logs(n), dlogs(n), grad(n);
    for (size_t r = 0; r < rows; ++r) {
        labels[r] = r == 3 ? -100 : (int64_t)(r * 7 % cols);
        w[r] = std::fabs(w[r]) + 0.1f;
        double sum = 0.0, dot = 0.0, all = 0.0;
        for (size_t c = 0; c < cols; ++c) {
            sum += std::exp(x[r * cols + c]);
        }
        for (size_t c = 0; c < cols; ++c) {
            size_t at = r * cols + c;
            soft[at] = std::exp(x[at]) / sum;
            logs[at] = x[at] - std::log(sum);
            dot += dy[at] * soft[at];
            all += dy[at];
            if (r != 3) {
                double target = smoothing / cols + ((int64_t)c == labels[r] ? 1.0 - smoothing : 0.0);
                total -= w[r] * target * logs[at];
            }
        }
        weight += r == 3 ? 0.0 : w[r];
        for (size_t c = 0; c < cols; ++c) {
            size_t at = r * cols + c;
            dsoft[at] = soft[at] * (dy[at] - dot);
            dlogs[at] = dy[at] - soft[at] * all;
        }
    }
    for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < cols; ++c) {
            double target = smoothing / cols + ((int64_t)c == labels[r] ? 1.0 - smoothing : 0.0);
            grad[r * cols + c] = r == 3 ? 0.0 : 0.7 * w[r] / weight * (soft[r * cols + c] - target);
        }
    }
    for (int log = 0; log < 2; ++log) {
        et_launch(2, 1, 256, 1, [&] { et_softmax_forward(rows, cols, log, x.data(), y.data()); });
        compare("softmax", y, log ? logs : soft, 1e-6);
        et_launch(2, 1, 256, 1, [&] { et_softmax_backward(rows, cols, log, y.data(), dy.data(), dx.data()); });
        compare("softmax backward", dx, log ? dlogs : dsoft, 1e-5);
    }
    et_launch(2, 1, 256, 1, [&] {
        et_cross_entropy_rows(rows, cols, -100, (float)smoothing, x.data(), labels.data(), w.data(), log_sums.data(), each.data());
    });
    et_launch(1, 1, 256, 1, [&] {
        et_cross_entropy_mean(rows, -100, labels.data(), w.data(), each.data(), loss.data(), inverse.data());
    });
    compare("cross entropy", loss, {total / weight}, 1e-6);
    et_launch((unsigned)rows, 1, 256, 1, [&] {
        et_cross_entropy_backward(rows, cols, -100, (float)smoothing, x.data(), labels.data(), w.data(), log_sums.data(), dloss.data(),
                                  inverse.data(), dx.data());
    });
    compare("cross entropy backward", dx, grad, 1e-5);
}

static void tables() {
    size_t width = 70, positions = 9;
    Floats a = numbers(5 * width, 1), b = numbers(3 * width, 2), y(positions * width, NONE), dy = numbers(positions * width, 3);
    std::vector<int64_t> ia(positions), ib(positions);
    Doubles sum(positions * width), grad(5 * width, 0.0);
    for (size_t t = 0; t < positions; ++t) {
        ia[t] = (int64_t)(t * t % 5);
        ib[t] = (int64_t)(t % 3);
        for (size_t c = 0; c < width; ++c) {
            sum[t * width + c] = a[ia[t] * width + c] + b[ib[t] * width + c];
            grad[ia[t] * width + c] += dy[t * width + c];
        }
    }
    EtTables tables = {{a.data(), b.data(), nullptr, nullptr}, {ia.data(), ib.data(), nullptr, nullptr}};
    et_launch((unsigned)positions, 1, 64, 1, [&] { et_embedding_forward(width, 2, 0, tables, y.data()); });
    compare("embedding", y, sum, 1e-6);
    // Positions by id, id 1 in two pieces.
    std::vector<uint32_t> order, starts, pieces, ids;
    for (int64_t id = 0; id < 5; ++id) {
        size_t before = order.size();
        for (uint32_t t = 0; t < positions; ++t) {
            if (ia[t] == id) {
                order.push_back(t);
            }
        }
        if (order.size() == before) {
            continue;
        }
        ids.push_back((uint32_t)id);
        pieces.push_back((uint32_t)starts.size());
        starts.push_back((uint32_t)before);
        if (id == 1) {
            starts.push_back((uint32_t)before + 1);
        }
    }
    pieces.push_back((uint32_t)starts.size());
    starts.push_back((uint32_t)order.size());
    Floats partial((starts.size() - 1) * width, NONE), table(5 * width, 0.0f);
    et_launch((unsigned)starts.size() - 1, 1, 64, 1,
              [&] { et_embedding_pieces(width, starts.data(), order.data(), dy.data(), partial.data()); });
    et_launch((unsigned)ids.size(), 1, 64, 1,
              [&] { et_embedding_finish(width, pieces.data(), ids.data(), partial.data(), table.data()); });
    compare("embedding backward", table, grad, 1e-6);
    int64_t runs[] = {0, 4, 4, 9};
    for (int kind = 1; kind <= 3; ++kind) {
        Floats pooled(3 * width, NONE), dpool = numbers(3 * width, 5), dx(positions * width, NONE);
        Doubles expected(3 * width, 0.0), back(positions * width, 0.0);
        for (int run = 0; run < 3; ++run) {
            for (size_t c = 0; c < width && runs[run] < runs[run + 1]; ++c) {
                double value = 0.0;
                int64_t best = runs[run];
                for (int64_t t = runs[run]; t < runs[run + 1]; ++t) {
                    value += dy[t * width + c] / (double)(runs[run + 1] - runs[run]);
                    best = dy[t * width + c] > dy[best * width + c] ? t : best;
                }
                int64_t at = kind == 2 ? runs[run] : best;
                expected[run * width + c] = kind == 1 ? value : dy[at * width + c];
                for (int64_t t = runs[run]; t < runs[run + 1]; ++t) {
                    double share = kind == 1 ? 1.0 / (double)(runs[run + 1] - runs[run]) : t == at;
                    back[t * width + c] = share * dpool[run * width + c];
                }
            }
        }
        et_launch(3, 1, 64, 1, [&] { et_pool_forward(kind, width, runs, dy.data(), pooled.data()); });
        compare("pool", pooled, expected, 1e-6);
        et_launch(3, 1, 64, 1, [&] { et_pool_backward(kind, width, runs, dy.data(), dpool.data(), dx.data()); });
        compare("pool backward", dx, back, 1e-6);
    }
}

static void optimizers() {
    size_t n = 500;
    Floats p = numbers(n, 1), g = numbers(n, 2), m = numbers(n, 3), v = numbers(n, 4);
    for (float &x : v) {
        x = std::fabs(x);
    }
    std::vector<EtTask> tasks = {{0, 200, 0}, {200, 100, 0}, {310, 190, 1}};
    EtRates rates[2] = {{0.99f, 0.0f, 0.02f, 0.9f, 0.1f, 0.999f, 0.001f, 1.2f, 1e-6f, 1.0f, 0.1f, 0.01f},
                        {0.98f, 0.1f, 0.03f, 0.9f, 0.1f, 0.999f, 0.001f, 1.2f, 1e-6f, 1.0f, 0.0f, 0.02f}};
    Doubles norm(1, 0.0), adam(p.begin(), p.end()), lamb(p.begin(), p.end());
    double sums[2][2] = {};
    for (int pass = 0; pass < 2; ++pass) {
        for (const EtTask &task : tasks) {
            const EtRates &c = rates[task.param];
            for (uint64_t i = task.start; i < task.start + task.len; ++i) {
                double gradient = g[i], moment = m[i] + (gradient + c.l2 * p[i] - m[i]) * c.rest1;
                double squared = v[i] * c.beta2 + (gradient + c.l2 * p[i]) * (gradient + c.l2 * p[i]) * c.rest2;
                double lm = m[i] * c.beta1 + gradient * c.rest1, lv = v[i] * c.beta2 + gradient * gradient * c.rest2;
                double u = lm * c.step_size / (std::sqrt(lv) * c.root2 + c.eps) + c.decay * p[i];
                if (pass == 0) {
                    norm[0] += gradient * gradient;
                    adam[i] = p[i] * c.keep - c.step_size * moment / (std::sqrt(squared) * c.root2 + c.eps);
                    sums[task.param][0] += (double)p[i] * p[i];
                    sums[task.param][1] += u * u;
                } else {
                    lamb[i] = p[i] - c.rate * std::sqrt(sums[task.param][0] / sums[task.param][1]) * u;
                }
            }
        }
    }
    Doubles partial(3, NAN), total(1, NAN), norms(6, NAN);
    et_launch(3, 1, 256, 1, [&] { et_square_partial(tasks.data(), g.data(), partial.data()); });
    et_launch(1, 1, 256, 1, [&] { et_sum_finish(3, partial.data(), total.data()); });
    compare("square sum", {(float)total[0]}, norm, 1e-6);
    Floats pa = p, ma = m, va = v;
    et_launch(3, 1, 256, 1, [&] { et_adam_step(tasks.data(), rates, pa.data(), g.data(), ma.data(), va.data()); });
    compare("adam", pa, adam, 1e-6);
    pa = p;
    ma = m;
    va = v;
    uint32_t first[] = {0, 2, 3};
    et_launch(3, 1, 256, 1, [&] { et_lamb_moments(tasks.data(), rates, pa.data(), g.data(), ma.data(), va.data(), norms.data()); });
    et_launch(3, 1, 256, 1, [&] { et_lamb_apply(tasks.data(), rates, first, norms.data(), pa.data(), ma.data(), va.data()); });
    compare("lamb", pa, lamb, 1e-6);
}

typedef void (*Forward)(EtAttention, const EtRun *, const EtTile *, const float *, const float *, const float *, float *, float *);
typedef void (*Query)(EtAttention, const EtRun *, const EtTile *, const float *, const float *, const float *, const float *, const float *,
                      const float *, float *);
typedef void (*Key)(EtAttention, const EtRun *, const EtTile *, const float *, const float *, const float *, const float *, const float *,
                    const float *, float *, float *);

static void attention(const char *name, Forward forward, Query query, Key key, uint32_t size, bool causal, bool dropout, double tolerance) {
    const uint32_t heads = 2, width = heads * size;
    // Queries and keys of each run; the last has queries without keys.
    const uint32_t lens[][2] = {{5, 5}, {70, 67}, {0, 3}, {1, 1}, {2, 0}};
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
    Floats q = numbers(queries * step, 1), k = numbers(keys * step, 2), v = numbers(keys * step, 3), d_o = numbers(queries * width, 4);
    EtAttention a = {heads, size, step, step, step, 68, causal, dropout, 0.4f, 0.0f, {3, 4, 6, 858993459u, 1.25f}};
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
    Floats o(queries * width, NONE), lse(queries * heads, NONE), delta(queries * heads, NONE), dq(queries * width, NONE);
    Floats dk(keys * width, NONE), dv(keys * width, NONE);
    unsigned tiles = (unsigned)query_tiles.size();
    et_launch(tiles, heads, 256, 1,
              [&] { forward(a, runs.data(), query_tiles.data(), q.data(), k.data(), v.data(), o.data(), lse.data()); });
    compare(name, o, eo, tolerance);
    compare("  log of sums", lse, elog, tolerance);
    et_launch(blocks(queries * heads, 8), 1, 256, 1,
              [&] { et_attention_delta(queries * heads, size, o.data(), d_o.data(), delta.data()); });
    et_launch(tiles, heads, 256, 1, [&] {
        query(a, runs.data(), query_tiles.data(), q.data(), k.data(), v.data(), d_o.data(), lse.data(), delta.data(), dq.data());
    });
    compare("  queries", dq, eq, 2.0 * tolerance);
    et_launch((unsigned)key_tiles.size(), heads, 256, 1, [&] {
        key(a, runs.data(), key_tiles.data(), q.data(), k.data(), v.data(), d_o.data(), lse.data(), delta.data(), dk.data(), dv.data());
    });
    compare("  keys", dk, ek, 2.0 * tolerance);
    compare("  values", dv, ev, 2.0 * tolerance);
}

int main() {
    elementwise();
    norms();
    losses();
    tables();
    optimizers();
    for (int variant = 0; variant < 3; ++variant) {
        bool causal = variant == 1, dropout = variant == 2;
        attention("attention 20", et_attention_forward_32, et_attention_query_32, et_attention_key_32, 20, causal, dropout, 2e-5);
        attention("attention 64", et_attention_forward_64, et_attention_query_64, et_attention_key_64, 64, causal, dropout, 2e-5);
        attention("attention bf16 32", et_attention_forward_bf16_32, et_attention_query_bf16_32, et_attention_key_bf16_32, 32, causal,
                  dropout, 1e-2);
    }
    attention("attention 96", et_attention_forward_96, et_attention_query_96, et_attention_key_96, 96, false, true, 2e-5);
    attention("attention 128", et_attention_forward_128, et_attention_query_128, et_attention_key_128, 128, true, false, 2e-5);
    attention("attention bf16 64", et_attention_forward_bf16_64, et_attention_query_bf16_64, et_attention_key_bf16_64, 64, true, true, 1e-2);
    attention("attention f16 80", et_attention_forward_f16_96, et_attention_query_bf16_96, et_attention_key_bf16_96, 80, false, false, 1e-2);
    attention("attention f16 128", et_attention_forward_f16_128, et_attention_query_bf16_128, et_attention_key_bf16_128, 128, false, true,
              1e-2);
    std::printf("%d failed\n", failed);
    return failed;
}
