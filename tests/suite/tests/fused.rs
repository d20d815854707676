//! The safe wrappers of fused operations reach the engine: values against plain loops.

use easytransfer::plugin::nn::{
    self, Attention, AttentionTerms, Crf, DistanceBias, Order, Positions, Recurrent, Segments,
};
use easytransfer::plugin::{DType, Tensor};
use easytransfer_tests::linked;

/// Values in [-1, 1).
fn numbers(len: usize, seed: f64) -> Vec<f64> {
    (0..len).map(|i| ((i as f64 + 1.0) * 1.7 + seed).sin()).collect()
}

fn tensor(shape: &[usize], seed: f64) -> Tensor {
    Tensor::from_slice(&numbers(shape.iter().product(), seed), shape).unwrap()
}

fn integers(values: &[i64]) -> Tensor {
    Tensor::from_slice(values, &[values.len()]).unwrap()
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-12, "element {at}: expected {b}, found {a}");
    }
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_vec::<f64>().unwrap()
}

const OPTIONS: Attention = Attention { heads: 1, scale: Some(1.0), dropout: 0.0, causal: false };

#[test]
fn attention_reads_other_runs_and_every_term() {
    linked::runtime();
    let (q, k, v) = (tensor(&[2, 3], 0.1), tensor(&[3, 3], 0.2), tensor(&[3, 3], 0.3));
    let (starts, key_starts) = (integers(&[0, 2]), integers(&[0, 3]));
    let bias = tensor(&[2, 1], 0.4);
    let (keys, query, queries) = (tensor(&[2, 3], 0.5), tensor(&[2, 3], 0.6), tensor(&[2, 3], 0.7));
    let scores = tensor(&[2, 1, 2], 0.8);
    // Row 0 up to the query's own place, row 1 after it.
    let buckets = integers(&[0, 0, 1]);
    let (of_queries, of_keys) = (integers(&[0, 1]), integers(&[0, 1, 1]));
    let (places, key_places) = (integers(&[5, 5]), integers(&[6, 5, 4]));
    let terms = AttentionTerms {
        key_starts: Some(&key_starts),
        bias: Some(DistanceBias { table: &bias, buckets: &buckets }),
        positions: Some(Positions {
            buckets: &buckets,
            keys: Some(&keys),
            query: Some(&query),
            queries: Some(&queries),
        }),
        segments: Some(Segments {
            scores: &scores,
            of_queries: &of_queries,
            of_keys: Some(&of_keys),
        }),
        window: Some(1),
        order: Some(Order { of_queries: &places, of_keys: Some(&key_places), inclusive: true }),
    };
    let options = Attention { scale: Some(0.5), ..OPTIONS };
    let y = nn::attention_with(&q, [&k, &v], &starts, options, &terms, None).unwrap();
    let dot = |a: &Tensor, i: usize, b: &Tensor, j: usize| -> f64 {
        (0..3).map(|c| values(a)[3 * i + c] * values(b)[3 * j + c]).sum()
    };
    let mut expected = vec![0.0; 6];
    for i in 0..2usize {
        let mut weights = [0.0; 3];
        for (j, weight) in weights.iter_mut().enumerate() {
            let distance = j as i64 - (i as i64 + 1);
            let row = usize::from(distance > 0);
            let other = usize::from([0, 1][i] != [0, 1, 1][j]);
            let products =
                dot(&q, i, &k, j) + dot(&query, i, &keys, row) + dot(&k, j, &queries, row);
            let score = 0.5 * (products + values(&scores)[2 * i + other]) + values(&bias)[row];
            // Key 0 has a later place; the window hides what is two away.
            *weight = if j == 0 || distance.abs() > 1 { 0.0 } else { score.exp() };
        }
        let sum: f64 = weights.iter().sum();
        for (j, weight) in weights.iter().enumerate() {
            (0..3).for_each(|c| expected[3 * i + c] += weight / sum * values(&v)[3 * j + c]);
        }
    }
    close(&values(&y), &expected);
    let none = AttentionTerms { window: Some(0), ..AttentionTerms::default() };
    let refused = nn::attention_with(&q, [&q, &q], &starts, options, &none, None).err().unwrap();
    assert!(refused.message().contains("window"), "{}", refused.message());
    assert!(
        nn::supports(c"attention", 1, DType::F32) && !nn::supports(c"attention", 2, DType::F32)
    );
}

#[test]
fn recurrent_networks_follow_their_equations() {
    linked::runtime();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (x, starts) = (tensor(&[5, 2], 0.1), integers(&[0, 3, 5]));
    for (gates, reverse) in [(4, false), (4, true), (3, false), (3, true)] {
        let weights = [tensor(&[gates, 2], 0.2), tensor(&[gates, 1], 0.3)];
        let biases = [tensor(&[gates], 0.4), tensor(&[gates], 0.5)];
        let given = Recurrent {
            input_weight: &weights[0],
            state_weight: &weights[1],
            input_bias: &biases[0],
            state_bias: &biases[1],
        };
        let [w, u, b, c] = [&weights[0], &weights[1], &biases[0], &biases[1]].map(values);
        let mut expected = vec![0.0; 5];
        for run in [[0usize, 1, 2].as_slice(), &[3, 4]] {
            let mut order = run.to_vec();
            if reverse {
                order.reverse();
            }
            let (mut h, mut cell) = (0.0, 0.0);
            for t in order {
                let x = &values(&x)[2 * t..2 * t + 2];
                let input = |g: usize| w[2 * g] * x[0] + w[2 * g + 1] * x[1] + b[g];
                let state = |g: usize| u[g] * h + c[g];
                let gate = |g: usize| sigmoid(input(g) + state(g));
                if gates == 4 {
                    let new = (input(2) + state(2)).tanh();
                    cell = gate(1) * cell + gate(0) * new;
                    h = gate(3) * f64::tanh(cell);
                } else {
                    let new = (input(2) + gate(0) * state(2)).tanh();
                    h = (1.0 - gate(1)) * new + gate(1) * h;
                }
                expected[t] = h;
            }
        }
        let made = if gates == 4 { nn::lstm } else { nn::gru };
        close(&values(&made(&x, given, &starts, reverse).unwrap()), &expected);
    }
}

#[test]
fn random_fields_weigh_every_path() {
    linked::runtime();
    let (emissions, transitions) = (tensor(&[4, 3], 0.1), tensor(&[3, 3], 0.2));
    let (first, last) = (tensor(&[3], 0.3), tensor(&[3], 0.4));
    let field = Crf { transitions: &transitions, first: &first, last: &last };
    let (starts, tags) = (integers(&[0, 3, 4]), [2i64, 0, 1, 1]);
    let score = |begin: usize, path: &[usize]| -> f64 {
        let emitted =
            path.iter().enumerate().map(|(t, &tag)| values(&emissions)[3 * (begin + t) + tag]);
        let moved = path.windows(2).map(|pair| values(&transitions)[3 * pair[0] + pair[1]]);
        let ends = values(&first)[path[0]] + values(&last)[path[path.len() - 1]];
        emitted.sum::<f64>() + moved.sum::<f64>() + ends
    };
    let (mut loss, mut best) = (0.0, Vec::new());
    for (begin, len) in [(0usize, 3usize), (3, 1)] {
        let path = |code: usize| -> Vec<usize> {
            (0..len).map(|t| code / 3usize.pow(t as u32) % 3).collect()
        };
        let paths: Vec<Vec<usize>> = (0..3usize.pow(len as u32)).map(path).collect();
        let all: f64 = paths.iter().map(|path| score(begin, path).exp()).sum();
        let given: Vec<usize> = tags[begin..begin + len].iter().map(|&tag| tag as usize).collect();
        loss += (all.ln() - score(begin, &given)) / 2.0;
        let top = paths.iter().max_by(|a, b| score(begin, a).total_cmp(&score(begin, b)));
        best.extend(top.unwrap().iter().map(|&tag| tag as i64));
    }
    let made = nn::crf_loss(&emissions, &integers(&tags), &starts, field).unwrap();
    close(&values(&made), &[loss]);
    let decoded = nn::crf_decode(&emissions, &starts, field).unwrap();
    assert_eq!(decoded.to_vec::<i64>().unwrap(), best);
}
