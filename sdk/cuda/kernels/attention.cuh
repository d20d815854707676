// What the attention kernels share: runs, tiles, and the gradients of a tile of scores.
#pragma once

#include "common.cuh"

#define TILE 64
#define PITCH 68

// One run; the same fields as `Run` of cuda/attention.rs.
struct EtRun {
    uint32_t query;
    uint32_t queries;
    uint32_t key;
    uint32_t keys;
};

// A tile of a run: its first query (or key) within the run.
struct EtTile {
    uint32_t run;
    uint32_t first;
};

struct EtAttention {
    uint32_t heads;
    uint32_t head_size;
    // Elements from one row to the next.
    uint32_t query_step;
    uint32_t key_step;
    uint32_t value_step;
    // Elements between two rows of probabilities in the stream of random numbers.
    uint32_t row_len;
    int32_t causal;
    int32_t has_dropout;
    float scale;
    // Words of 64 decisions of dropout for a query of one head.
    uint32_t mask_words;
    EtDropout dropout;
};

// Keys that the query sees, counted within the run.
__device__ __forceinline__ int visible(const EtAttention& a, const EtRun& run, int query) {
    if (!a.causal) {
        return (int)run.keys;
    }
    int seen = query + 1 + (int)run.keys - (int)run.queries;
    return seen < 0 ? 0 : (seen < (int)run.keys ? seen : (int)run.keys);
}

__device__ __forceinline__ uint64_t random_element(const EtAttention& a, const EtRun& run, int head, int query, int key) {
    return ((uint64_t)(run.query + query) * a.heads + head) * a.row_len + key;
}

// From scores and do v^T of a tile: p becomes the dropped probabilities, ds the gradients of q k^T. `query` and `key`
// are those of element (0, 0) of the thread.
__device__ __forceinline__ void gradients(const EtAttention& a, const EtRun& run, int head, int query, int key, int last_query,
                                          const float* lse, const float* delta, float (&p)[4][4], float (&ds)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        bool inside = query + i < last_query;
        int seen = inside ? visible(a, run, query + i) : 0;
        uint64_t at = inside ? (uint64_t)(run.query + query + i) * a.heads + head : 0;
        float normalizer = inside ? lse[at] : 0.0f, level = inside ? delta[at] : 0.0f;
        EtWords words;
        if (a.has_dropout) {
            words = et_words4(a.dropout.seed, a.dropout.stream, a.dropout.offset + random_element(a, run, head, query + i, key));
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float factor = a.has_dropout ? et_factor(a.dropout, words.w[j]) : 1.0f;
            float probability = key + j < seen ? expf(p[i][j] * a.scale - normalizer) : 0.0f;
            ds[i][j] = probability * (ds[i][j] * factor - level) * a.scale;
            p[i][j] = probability * factor;
        }
    }
}
