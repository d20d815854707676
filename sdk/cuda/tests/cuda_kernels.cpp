// Runs the CUDA kernels on the emulator and compares them with plain loops in double precision. Prints one line per
// check; the exit code is the number of those that failed.
#define ET_EMULATE "../tests/cuda_emulator.hpp"

#include "../kernels/adafactor.cu"
#include "../kernels/conv.cu"
#include "../kernels/elementwise.cu"
#include "../kernels/losses.cu"
#include "../kernels/norm.cu"
#include "../kernels/optim.cu"
#include "../kernels/padding.cu"
#include "../kernels/rows.cu"

#include "cuda_check.hpp"

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
    et_launch(blocks(cols, 32), 1, 32, 32, [&] { et_column_finish(parts, cols, 1, partial.data(), out.data()); });
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
            Doubles sums(n), kept(n);
            for (size_t at = 0; at < n; ++at) {
                float keep = has_dropout ? et_dropout1(d, at) : 1.0f;
                kept[at] = keep;
                sums[at] = x[at] * keep + (has_residual ? r[at] : 0.0f);
            }
            NormReference right(rows, cols, rms, eps, sums, Doubles(dy.begin(), dy.end()), kept, gamma, beta);
            float *sum = has_residual ? summed.data() : nullptr;
            et_launch(blocks(rows, 8), 1, 256, 1, [&] {
                et_norm_forward(rows, cols, has_dropout, rms, d, (float)eps, x.data(), has_residual ? r.data() : nullptr, gamma.data(),
                                rms ? nullptr : beta.data(), y.data(), sum, rms ? nullptr : mean.data(), rstd.data());
            });
            compare("norm", y, right.y, 1e-5);
            const float *saved = sum ? sum : x.data();
            Floats again(n, NONE);
            et_launch(blocks(rows, 8), 1, 256, 1, [&] {
                et_norm_again(rows, cols, saved, rms ? nullptr : mean.data(), rstd.data(), gamma.data(), rms ? nullptr : beta.data(),
                              again.data());
            });
            compare("norm again", again, Doubles(y.begin(), y.end()), 0.0);
            et_launch(blocks(rows, 8), 1, 256, 1, [&] {
                et_norm_backward(rows, cols, has_dropout, rms, d, dy.data(), saved, mean.data(), rstd.data(), gamma.data(), dx.data(),
                                 dr.data());
            });
            compare("norm dx", dx, right.dx, 1e-4);
            compare("norm dresidual", dr, right.dresidual, 1e-4);
            size_t chunk = 4, parts = 3;
            Floats gammas(parts * cols, NONE), betas(parts * cols, NONE), dgamma(cols, NONE), dbeta(cols, NONE);
            et_launch(blocks(cols, 32), parts, 32, 8, [&] {
                et_norm_columns(rows, cols, chunk, rms, dy.data(), saved, mean.data(), rstd.data(), gammas.data(), betas.data());
            });
            et_launch(blocks(cols, 32), 1, 32, 32, [&] { et_column_finish(parts, cols, 0, gammas.data(), dgamma.data()); });
            et_launch(blocks(cols, 32), 1, 32, 32, [&] { et_column_finish(parts, cols, 0, betas.data(), dbeta.data()); });
            compare("norm dgamma", dgamma, right.dgamma, 1e-5);
            compare("norm dbeta", dbeta, right.dbeta, 1e-5);
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
    std::vector<__nv_bfloat16> copy(n);
    std::vector<__half> other(n);
    EtCopies copies = {copy.data(), other.data()}, none = {nullptr, nullptr};
    et_launch(3, 1, 256, 1, [&] { et_adam_step(tasks.data(), rates, pa.data(), g.data(), ma.data(), va.data(), copies); });
    compare("adam", pa, adam, 1e-6);
    Floats kept = values(copy), half = values(other);
    Doubles bf16(kept.begin(), kept.end()), f16(half.begin(), half.end());
    for (const EtTask &task : tasks) {
        for (uint64_t i = task.start; i < task.start + task.len; ++i) {
            bf16[i] = et_rounded<__nv_bfloat16>(pa[i]);
            f16[i] = et_rounded<__half>(pa[i]);
        }
    }
    compare("adam bf16 copy", kept, bf16, 0.0);
    compare("adam f16 copy", half, f16, 0.0);
    pa = p;
    ma = m;
    va = v;
    uint32_t first[] = {0, 2, 3};
    et_launch(3, 1, 256, 1, [&] { et_lamb_moments(tasks.data(), rates, pa.data(), g.data(), ma.data(), va.data(), norms.data()); });
    et_launch(3, 1, 256, 1, [&] { et_lamb_apply(tasks.data(), rates, first, norms.data(), pa.data(), ma.data(), va.data(), copies); });
    compare("lamb", pa, lamb, 1e-6);
    compare("lamb bf16 copy", {et_wide(copy[0]), et_wide(copy[499])}, {et_rounded<__nv_bfloat16>(pa[0]), et_rounded<__nv_bfloat16>(pa[499])}, 0.0);
    pa = p;
    ma = m;
    Doubles sgd(p.begin(), p.end());
    for (const EtTask &task : tasks) {
        const EtRates &c = rates[task.param];
        for (uint64_t i = task.start; i < task.start + task.len; ++i) {
            double gradient = g[i] + c.l2 * p[i];
            sgd[i] = p[i] - c.rate * (gradient + 0.9f * (0.9f * m[i] + gradient));
        }
    }
    et_launch(3, 1, 256, 1, [&] { et_sgd_step(tasks.data(), rates, 0.9f, 1.0f, 1, 0, pa.data(), g.data(), ma.data(), none); });
    compare("sgd", pa, sgd, 1e-6);
}

static void binary() {
    size_t rows = 9, cols = 5, n = rows * cols;
    Floats x = numbers(n, 1), t = numbers(n, 2), w = numbers(rows, 3), each(rows, NONE), loss(1, NONE), inverse(1, NONE), dx(n, NONE);
    Floats dloss(1, 0.7f);
    // Far from 0, exponentials overflow where they are not written with care.
    x[3] = 120.0f;
    x[4] = -120.0f;
    for (int weighted = 0; weighted < 2; ++weighted) {
        double total = 0.0, weight = 0.0;
        Doubles grad(n);
        for (size_t r = 0; r < rows; ++r) {
            w[r] = std::fabs(w[r]) + 0.1f;
            weight += weighted ? w[r] : 1.0f;
        }
        for (size_t at = 0; at < n; ++at) {
            t[at] = std::fabs(t[at]);
            double share = (weighted ? w[at / cols] : 1.0f) / weight / (double)cols, v = x[at];
            total += share * (v > 0.0 ? v + std::log1p(std::exp(-v)) - v * t[at] : std::log1p(std::exp(v)) - v * t[at]);
            grad[at] = 0.7 * share * (1.0 / (1.0 + std::exp(-v)) - t[at]);
        }
        const float *weights = weighted ? w.data() : nullptr;
        et_launch(2, 1, 256, 1, [&] { et_binary_rows(rows, cols, x.data(), t.data(), weights, each.data()); });
        et_launch(1, 1, 256, 1, [&] { et_binary_mean(rows, weights, each.data(), loss.data(), inverse.data()); });
        compare("binary cross entropy", loss, {total}, 1e-6);
        et_launch(1, 1, 256, 1, [&] {
            et_binary_backward(rows, cols, x.data(), t.data(), weights, dloss.data(), inverse.data(), dx.data());
        });
        compare("binary cross entropy backward", dx, grad, 1e-6);
    }
    Floats nothing(rows, 0.0f);
    et_launch(1, 1, 256, 1, [&] { et_binary_mean(rows, nothing.data(), each.data(), loss.data(), inverse.data()); });
    compare("binary cross entropy of no weight", {loss[0], inverse[0]}, {0.0, 0.0}, 0.0);
}

template <typename E>
static void padding(void (*to)(uint64_t, uint64_t, const int64_t *, const E *, E *),
                    void (*from)(uint64_t, uint64_t, const int64_t *, const E *, E *)) {
    // A run that fits, an empty one, one that is cut.
    const int64_t starts[] = {0, 2, 2, 7};
    const size_t width = 70, len = 3, rows = 7;
    std::vector<E> x(rows * width), padded(3 * len * width, (E)7), back(rows * width, (E)7);
    for (size_t i = 0; i < x.size(); ++i) {
        x[i] = (E)(i + 1);
    }
    et_launch(3 * len, 1, 64, 1, [&] { to(width, len, starts, x.data(), padded.data()); });
    et_launch(3, 2, 64, 1, [&] { from(width, len, starts, padded.data(), back.data()); });
    Floats found(padded.begin(), padded.end()), again(back.begin(), back.end());
    Doubles expected(padded.size(), 0.0), kept(x.size(), 0.0);
    for (size_t run = 0; run < 3; ++run) {
        for (size_t place = 0; place < len && starts[run] + (int64_t)place < starts[run + 1]; ++place) {
            for (size_t c = 0; c < width; ++c) {
                size_t at = (starts[run] + place) * width + c;
                expected[(run * len + place) * width + c] = kept[at] = x[at];
            }
        }
    }
    compare("to padded", found, expected, 0.0);
    compare("from padded", again, kept, 0.0);
}

static void convolution() {
    // Two runs with an empty one between; more taps than rows in the first.
    const int64_t starts[] = {0, 2, 2, 9}, dilation = 2, before = 2;
    const size_t width = 40, taps = 3, rows = 9, wide = width * taps;
    Floats x = numbers(rows * width, 1), dy = numbers(rows * wide, 2), y(rows * wide, NONE), dx(rows * width, NONE);
    Doubles unfolded(y.size(), 0.0), folded(x.size(), 0.0), rough(x.size(), 0.0);
    std::vector<__nv_bfloat16> narrow = stored<__nv_bfloat16>(dy), half = stored<__nv_bfloat16>(dx);
    for (size_t run = 0; run < 3; ++run) {
        for (int64_t t = starts[run]; t < starts[run + 1]; ++t) {
            for (size_t k = 0; k < taps; ++k) {
                int64_t from = t + (int64_t)k * dilation - before;
                for (size_t i = 0; i < width && from >= starts[run] && from < starts[run + 1]; ++i) {
                    size_t at = t * wide + i * taps + k;
                    unfolded[at] = x[from * width + i];
                    folded[from * width + i] += dy[at];
                    rough[from * width + i] += et_wide(narrow[at]);
                }
            }
        }
    }
    const uint32_t *bits = (const uint32_t *)x.data();
    std::vector<uint32_t> moved(y.size(), 7);
    et_launch(3, 2, 64, 1, [&] { et_unfold_32(width, taps, dilation, before, starts, bits, moved.data()); });
    std::memcpy(y.data(), moved.data(), 4 * y.size());
    compare("unfold", y, unfolded, 0.0);
    et_launch(3, 2, 64, 1, [&] { et_fold_f32(width, taps, dilation, before, starts, dy.data(), dx.data()); });
    compare("fold", dx, folded, 1e-6);
    et_launch(3, 2, 64, 1, [&] { et_fold_bf16(width, taps, dilation, before, starts, narrow.data(), half.data()); });
    compare("fold bf16", values(half), rough, 1.0 / 256.0);
    std::vector<uint16_t> small(rows * width), spread(y.size(), 7);
    for (size_t i = 0; i < small.size(); ++i) {
        small[i] = (uint16_t)(i + 1);
    }
    Doubles places;
    for (size_t at = 0; at < y.size(); ++at) {
        // Which element of x a place of y comes from.
        int64_t t = (int64_t)(at / wide), from = t + (int64_t)(at % taps) * dilation - before, run = t < 2 ? 0 : 2;
        places.push_back(from >= starts[run] && from < starts[run + 1] ? from * width + at % wide / taps + 1 : 0);
    }
    et_launch(3, 2, 64, 1, [&] { et_unfold_16(width, taps, dilation, before, starts, small.data(), spread.data()); });
    compare("unfold 16", Floats(spread.begin(), spread.end()), places, 0.0);
}

static void adafactor() {
    // A matrix of 7 x 40 in tasks of 3, 3 and 1 rows, a vector of 100 in two tasks.
    const uint32_t rows = 7, cols = 40, len = 100;
    size_t n = 288 + len;
    Floats p = numbers(n, 1), g = numbers(n, 2), state = numbers(rows + cols + len, 3), partial(3 * cols, NONE), means(2, NONE);
    for (float &x : state) {
        x = std::fabs(x) + 0.01f;
    }
    std::vector<EtTask> tasks = {{0, 120, 0}, {120, 120, 0}, {240, 40, 0}, {288, 60, 1}, {348, 40, 1}};
    EtFactored params[] = {{0, 0, 0, rows, cols, 0, 3, 0.99f, 0.05f}, {288, rows + cols, 0, len, 0, 3, 2, 1.0f, 0.02f}};
    EtFactoring c = {0.5f, 1e-30f, 0.3f, 0.9f};
    Doubles r(state.begin(), state.begin() + rows), k(state.begin() + rows, state.begin() + rows + cols), expected(p.begin(), p.end());
    Doubles v(state.begin() + rows + cols, state.end()), u(n, 0.0), squares(5, NAN);
    double mean = 0.0, sums[2] = {};
    for (uint32_t i = 0; i < rows; ++i) {
        double sum = 0.0;
        for (uint32_t j = 0; j < cols; ++j) {
            sum += 0.25 * g[i * cols + j] * g[i * cols + j] / cols;
        }
        r[i] += (sum - r[i]) * (double)c.mix;
        mean += r[i] / rows;
    }
    for (uint32_t j = 0; j < cols; ++j) {
        double sum = 0.0;
        for (uint32_t i = 0; i < rows; ++i) {
            sum += 0.25 * g[i * cols + j] * g[i * cols + j] / rows;
        }
        k[j] += (sum - k[j]) * (double)c.mix;
    }
    for (uint32_t i = 0; i < rows * cols; ++i) {
        u[i] = 0.5 * g[i] / std::sqrt(r[i / cols] * k[i % cols] / mean);
        sums[0] += u[i] * u[i] / (rows * cols);
    }
    for (uint32_t i = 0; i < len; ++i) {
        v[i] += (0.25 * g[288 + i] * g[288 + i] - v[i]) * (double)c.mix;
        u[288 + i] = 0.5 * g[288 + i] / std::sqrt(v[i]);
        sums[1] += u[288 + i] * u[288 + i] / len;
    }
    for (size_t i = 0; i < n; ++i) {
        const EtFactored &f = params[i >= 288];
        expected[i] = f.keep * p[i] - f.rate * u[i] / std::fmax(1.0, std::sqrt(sums[i >= 288]) / c.clip);
        // What lies between two parameters belongs to nobody.
        if (i >= 280 && i < 288) {
            expected[i] = p[i];
        }
    }
    std::vector<__nv_bfloat16> copy(n);
    std::vector<__half> other(n);
    EtCopies copies = {copy.data(), other.data()};
    et_launch(5, 1, 256, 1, [&] { et_adafactor_moments(tasks.data(), params, c, g.data(), state.data(), partial.data()); });
    et_launch(2, 1, 256, 1, [&] { et_adafactor_factors(params, c, partial.data(), state.data(), means.data()); });
    et_launch(5, 1, 256, 1, [&] { et_adafactor_squares(tasks.data(), params, c, g.data(), state.data(), means.data(), squares.data()); });
    et_launch(5, 1, 256, 1, [&] {
        et_adafactor_apply(tasks.data(), params, c, g.data(), state.data(), means.data(), squares.data(), p.data(), copies);
    });
    r.insert(r.end(), k.begin(), k.end());
    r.insert(r.end(), v.begin(), v.end());
    compare("adafactor state", state, r, 1e-6);
    compare("adafactor", p, expected, 2e-6);
    Doubles narrow(n), half(n);
    for (size_t i = 0; i < n; ++i) {
        bool owned = i < 280 || i >= 288;
        narrow[i] = owned ? et_rounded<__nv_bfloat16>(p[i]) : 0.0f;
        half[i] = owned ? et_rounded<__half>(p[i]) : 0.0f;
    }
    compare("adafactor bf16 copy", values(copy), narrow, 0.0);
    compare("adafactor f16 copy", values(other), half, 0.0);
}

int main() {
    elementwise();
    norms();
    losses();
    binary();
    tables();
    padding(et_to_padded_16, et_from_padded_16);
    padding(et_to_padded_32, et_from_padded_32);
    convolution();
    optimizers();
    adafactor();
    std::printf("%d failed\n", failed);
    return failed;
}
