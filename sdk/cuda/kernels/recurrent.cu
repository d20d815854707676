// One step of recurrent layers over many runs at once. The products with the state come from elsewhere; here is what
// follows them, forward and backward. Row k of `state`, `product` and their gradients belongs to the k-th longest
// run, which reads token rows[k] at this step.
#include "common.cuh"

#define EACH(i, n) for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += (uint64_t)gridDim.x * blockDim.x)

// gates [T, 4 h] hold the input's side and become i, f, g, o; product [count, 4 h] is W_hh h, NULL at the first step.
// cell and state [count, h] are stepped; cells and y [T, h] keep them.
extern "C" __global__ void et_lstm_forward(uint64_t count, uint64_t h, const uint32_t* rows, const float* product, const float* bias,
                                           float* gates, float* cell, float* state, float* cells, float* y) {
    EACH(at, count * h) {
        uint64_t run = at / h, u = at % h, row = rows[run];
        float* own = gates + row * 4 * h + u;
        float side[4];
        for (int k = 0; k < 4; ++k) {
            side[k] = own[k * h] + ((product ? product[(run * 4 + k) * h + u] : 0.0f) + bias[k * h + u]);
        }
        float i = et_sigmoid(side[0]), f = et_sigmoid(side[1]), g = tanhf(side[2]), o = et_sigmoid(side[3]);
        float c = (product ? f * cell[at] : 0.0f) + i * g;
        own[0] = i;
        own[h] = f;
        own[2 * h] = g;
        own[3 * h] = o;
        cell[at] = cells[row * h + u] = c;
        state[at] = y[row * h + u] = o * tanhf(c);
    }
}

// From the gradients of the output, of the state that the next step met (dstate) and of the cell (dcell, which is
// stepped back) to those of the gates before their functions: dgates [count, 4 h] and their place in all [T, 4 h].
// `before` [T, h] becomes the state that each token met. rows_before is NULL at the first step.
extern "C" __global__ void et_lstm_backward(uint64_t count, uint64_t h, const uint32_t* rows, const uint32_t* rows_before,
                                            const float* gates, const float* cells, const float* y, const float* dy, const float* dstate,
                                            float* dcell, float* dgates, float* all, float* before) {
    EACH(at, count * h) {
        uint64_t run = at / h, u = at % h, row = rows[run];
        const float* own = gates + row * 4 * h + u;
        float i = own[0], f = own[h], g = own[2 * h], o = own[3 * h];
        float t = tanhf(cells[row * h + u]), dh = dy[row * h + u] + dstate[at];
        float dc = dcell[at] + dh * o * (1.0f - t * t);
        float met = rows_before ? cells[(uint64_t)rows_before[run] * h + u] : 0.0f;
        float d[4] = {dc * g * i * (1.0f - i), dc * met * f * (1.0f - f), dc * i * (1.0f - g * g), dh * t * o * (1.0f - o)};
        for (int k = 0; k < 4; ++k) {
            dgates[(run * 4 + k) * h + u] = d[k];
            all[(row * 4 + k) * h + u] = d[k];
        }
        dcell[at] = dc * f;
        before[row * h + u] = rows_before ? y[(uint64_t)rows_before[run] * h + u] : 0.0f;
    }
}

// gates [T, 3 h] hold the input's side and become r, z, n; product [count, 3 h] is W_hh h, NULL at the first step.
// inner [T, h] becomes W_hn h + b_hn; state [count, h] is stepped and kept in y [T, h].
extern "C" __global__ void et_gru_forward(uint64_t count, uint64_t h, const uint32_t* rows, const float* product, const float* bias,
                                          float* gates, float* state, float* inner, float* y) {
    EACH(at, count * h) {
        uint64_t run = at / h, u = at % h, row = rows[run];
        float* own = gates + row * 3 * h + u;
        float side[3];
        for (int k = 0; k < 3; ++k) {
            side[k] = (product ? product[(run * 3 + k) * h + u] : 0.0f) + bias[k * h + u];
        }
        float r = et_sigmoid(own[0] + side[0]), z = et_sigmoid(own[h] + side[1]), n = tanhf(own[2 * h] + r * side[2]);
        float next = (1.0f - z) * n + (product ? z * state[at] : 0.0f);
        own[0] = r;
        own[h] = z;
        own[2 * h] = n;
        inner[row * h + u] = side[2];
        state[at] = y[row * h + u] = next;
    }
}

// From the gradients of the output and of the state (dstate, which becomes the part that does not pass W_hh) to those
// of both sides of the gates: on the state's side dgates [count, 3 h] and its place in all_hidden [T, 3 h], on the
// input's all_input. `before` as above.
extern "C" __global__ void et_gru_backward(uint64_t count, uint64_t h, const uint32_t* rows, const uint32_t* rows_before,
                                           const float* gates, const float* inner, const float* y, const float* dy, float* dstate,
                                           float* dgates, float* all_input, float* all_hidden, float* before) {
    EACH(at, count * h) {
        uint64_t run = at / h, u = at % h, row = rows[run];
        const float* own = gates + row * 3 * h + u;
        float r = own[0], z = own[h], n = own[2 * h];
        float met = rows_before ? y[(uint64_t)rows_before[run] * h + u] : 0.0f, dh = dy[row * h + u] + dstate[at];
        float dn = dh * (1.0f - z) * (1.0f - n * n), dz = dh * (met - n) * z * (1.0f - z);
        float dr = dn * inner[row * h + u] * r * (1.0f - r);
        float in[3] = {dr, dz, dn}, side[3] = {dr, dz, dn * r};
        for (int k = 0; k < 3; ++k) {
            all_input[(row * 3 + k) * h + u] = in[k];
            all_hidden[(row * 3 + k) * h + u] = side[k];
            dgates[(run * 3 + k) * h + u] = side[k];
        }
        dstate[at] = dh * z;
        before[row * h + u] = met;
    }
}
