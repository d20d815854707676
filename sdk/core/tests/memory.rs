//! Memory of a training step: what a steady state allocates, and what recomputation changes. A binary of its own,
//! because it counts all allocations of the process; and one test, because tests run side by side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use easytransfer_abi::{ET_DTYPE_F32, ET_INIT_NORMAL, ET_OPTIM_ADAMW, et_init, et_optim_step};
use easytransfer_core::data::Map;
use easytransfer_core::nn::attention::{Attention, attention};
use easytransfer_core::nn::embedding::embedding_sum;
use easytransfer_core::nn::linear::linear;
use easytransfer_core::nn::loss::cross_entropy;
use easytransfer_core::nn::norm::{LayerNorm, dropout, layer_norm};
use easytransfer_core::nn::runs::pool;
use easytransfer_core::params::{Param, Params, Scope};
use easytransfer_core::recompute::{Recompute, set_recompute};
use easytransfer_core::rng::Rng;
use easytransfer_core::segment::{SegmentFn, run_segment};
use easytransfer_core::storage::tensor_from_vec;
use easytransfer_core::tensor::Tensor;
use easytransfer_core::{optim, storage, tape, workers};
use easytransfer_kernels::activation::Activation;
use easytransfer_kernels::padding::Pool;

/// Sizes from which an allocation counts as big.
const BIG: usize = 4096;

struct Counting;

static SMALL: AtomicUsize = AtomicUsize::new(0);
static LARGE: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are allocated and not freed.
static LIVE: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    let counter = if size >= BIG { &LARGE } else { &SMALL };
    counter.fetch_add(1, Ordering::Relaxed);
    LIVE.fetch_add(size, Ordering::Relaxed);
}

// SAFETY: everything is the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WIDTH: usize = 32;
const INNER: usize = 64;
const WORDS: usize = 500;

struct Dense {
    weight: Param,
    bias: Param,
}

struct Norm {
    gamma: Param,
    beta: Param,
}

struct Layer {
    query: Dense,
    key: Dense,
    value: Dense,
    out: Dense,
    out_norm: Norm,
    first: Dense,
    second: Dense,
    norm: Norm,
}

/// A small encoder as BERT's, with a classifier.
struct Model {
    params: Params,
    words: Param,
    places: Param,
    norm: Norm,
    layers: Vec<Arc<Layer>>,
    head: Dense,
    rng: Rng,
    state: Map,
}

fn normal(deviation: f64, mean: f64) -> et_init {
    et_init { kind: ET_INIT_NORMAL, reserved: 0, a: mean, b: deviation }
}

fn dense(scope: &Scope, name: &str, outputs: usize, inputs: usize) -> Dense {
    let scope = scope.child(name).unwrap();
    Dense {
        weight: scope.param("weight", &[outputs, inputs], normal(0.1, 0.0)).unwrap(),
        bias: scope.param("bias", &[outputs], normal(0.1, 0.0)).unwrap(),
    }
}

fn norm(scope: &Scope, name: &str) -> Norm {
    let scope = scope.child(name).unwrap();
    Norm {
        gamma: scope.param("gamma", &[WIDTH], normal(0.1, 1.0)).unwrap(),
        beta: scope.param("beta", &[WIDTH], normal(0.1, 0.0)).unwrap(),
    }
}

impl Dense {
    fn forward(&self, x: &Tensor, activation: Activation) -> Tensor {
        let (weight, bias) = (self.weight.tensor().unwrap(), self.bias.tensor().unwrap());
        linear(x, &weight, Some(&bias), activation).unwrap()
    }
}

impl Norm {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, rng: Option<&Rng>) -> Tensor {
        layer_norm(LayerNorm {
            x,
            residual,
            gamma: &self.gamma.tensor().unwrap(),
            beta: &self.beta.tensor().unwrap(),
            epsilon: 1e-12,
            dropout: 0.1,
            rng,
        })
        .unwrap()
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, starts: &Tensor, rng: Option<&Rng>) -> Tensor {
        let context = attention(Attention {
            query: &self.query.forward(x, Activation::None),
            key: &self.key.forward(x, Activation::None),
            value: &self.value.forward(x, Activation::None),
            starts,
            key_starts: None,
            heads: 4,
            scale: 0.0,
            dropout: 0.1,
            rng,
            causal: false,
            terms: Default::default(),
        })
        .unwrap();
        let attended = self.out.forward(&context, Activation::None);
        let x = self.out_norm.forward(&attended, Some(x), rng);
        let inner = self.first.forward(&x, Activation::Gelu);
        let output = self.second.forward(&inner, Activation::None);
        self.norm.forward(&output, Some(&x), rng)
    }
}

impl Model {
    fn new(layers: usize) -> Self {
        let params = Params::new(7, ET_DTYPE_F32).unwrap();
        let root = params.root();
        let layers = (0..layers)
            .map(|index| {
                let at = root.child(&format!("layer.{index}")).unwrap();
                Arc::new(Layer {
                    query: dense(&at, "query", WIDTH, WIDTH),
                    key: dense(&at, "key", WIDTH, WIDTH),
                    value: dense(&at, "value", WIDTH, WIDTH),
                    out: dense(&at, "out", WIDTH, WIDTH),
                    out_norm: norm(&at, "out_norm"),
                    first: dense(&at, "first", INNER, WIDTH),
                    second: dense(&at, "second", WIDTH, INNER),
                    norm: norm(&at, "norm"),
                })
            })
            .collect();
        let model = Self {
            words: root.param("words", &[WORDS, WIDTH], normal(0.5, 0.0)).unwrap(),
            places: root.param("places", &[64, WIDTH], normal(0.5, 0.0)).unwrap(),
            norm: norm(&root, "norm"),
            layers,
            head: dense(&root, "head", 2, WIDTH),
            rng: Rng::new(7, 1),
            state: Map::new(),
            params,
        };
        model.params.seal().unwrap();
        let state = optim::state(&model.params, ET_OPTIM_ADAMW).unwrap();
        Self { state, ..model }
    }

    fn loss(&self, batch: &Batch) -> Tensor {
        let (words, places) = (self.words.tensor().unwrap(), self.places.tensor().unwrap());
        let sum = embedding_sum(&[&words, &places], &[&batch.ids, &batch.positions]).unwrap();
        let rng = Some(&self.rng);
        let mut x = dropout(&self.norm.forward(&sum, None, None), 0.1, rng).unwrap();
        for layer in &self.layers {
            let layer = layer.clone();
            let run: SegmentFn =
                Box::new(move |inputs, rng| Ok(vec![layer.forward(inputs[0], inputs[1], rng)]));
            x = run_segment(&[&x, &batch.starts], rng, run).unwrap().remove(0);
        }
        let first = pool(&x, &batch.starts, Pool::First).unwrap();
        let logits = self.head.forward(&first, Activation::None);
        cross_entropy(&logits, &batch.labels, None, -100, 0.0).unwrap()
    }

    fn step(&self, number: u64, batch: &Batch) {
        self.params.zero_grads();
        let loss = self.loss(batch);
        tape::backward(&loss, None).unwrap();
        let norm = self.params.grad_norm().unwrap();
        self.params.scale_grads(0.5 / norm).unwrap();
        let options = et_optim_step {
            struct_size: size_of::<et_optim_step>(),
            kind: ET_OPTIM_ADAMW,
            nesterov: 0,
            lr: 1e-2,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            momentum: 0.0,
            step: number,
            begin: 0,
            end: 0,
        };
        optim::step(&self.params, &self.state, &options).unwrap();
    }

    fn values(&self) -> Vec<u32> {
        let each = self.params.all().into_iter().flat_map(|param| {
            let value = param.tensor().unwrap();
            storage::with_f32(value.value(), |x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
                .unwrap()
        });
        each.collect()
    }
}

struct Batch {
    ids: Tensor,
    positions: Tensor,
    starts: Tensor,
    labels: Tensor,
}

/// `rows` runs of `len` tokens; `turn` chooses the words.
fn batch(rows: usize, len: usize, turn: usize) -> Batch {
    let integers = |values: Vec<i64>| {
        let len = values.len();
        Tensor::new(tensor_from_vec(values, len).unwrap())
    };
    let tokens = rows * len;
    Batch {
        ids: integers((0..tokens).map(|i| ((i * 7 + turn * 13) % WORDS) as i64).collect()),
        positions: integers((0..tokens).map(|i| (i % len) as i64).collect()),
        starts: integers((0..=rows).map(|i| (i * len) as i64).collect()),
        labels: integers((0..rows).map(|i| (i % 2) as i64).collect()),
    }
}

fn trained(level: Recompute, layers: usize, steps: u64) -> Vec<u32> {
    set_recompute(level);
    let model = Model::new(layers);
    for step in 1..=steps {
        model.step(step, &batch(6, 5 + step as usize % 7, step as usize));
    }
    set_recompute(Recompute::None);
    model.values()
}

/// Bytes that a forward pass keeps for the backward pass.
fn kept(model: &Model, level: Recompute) -> usize {
    set_recompute(level);
    let batch = batch(8, 48, 0);
    let before = LIVE.load(Ordering::Relaxed) as isize - storage::pool_bytes() as isize;
    let loss = model.loss(&batch);
    let after = LIVE.load(Ordering::Relaxed) as isize - storage::pool_bytes() as isize;
    tape::backward(&loss, None).unwrap();
    set_recompute(Recompute::None);
    usize::try_from(after - before).unwrap()
}

#[test]
fn a_steady_step_allocates_nothing_big_and_recomputation_changes_no_bit() {
    // One thread: working memory belongs to threads, and when each of several meets its first task is chance.
    workers::choose(1).unwrap();
    for level in [Recompute::None, Recompute::Layer] {
        check_steady(level);
    }
    check_recomputation();
}

fn check_steady(level: Recompute) {
    set_recompute(level);
    let model = Model::new(1);
    // Nine kilobytes a tensor of WIDTH columns, so that every activation counts as big.
    let batches: Vec<Batch> = (0..8).map(|turn| batch(6, 12, turn)).collect();
    for step in 1..=4 {
        model.step(step, &batches[step as usize % 8]);
    }
    let (large, small) = (LARGE.load(Ordering::Relaxed), SMALL.load(Ordering::Relaxed));
    const STEPS: u64 = 20;
    for step in 5..5 + STEPS {
        model.step(step, &batches[step as usize % 8]);
    }
    let large = LARGE.load(Ordering::Relaxed) - large;
    let small = (SMALL.load(Ordering::Relaxed) - small) / STEPS as usize;
    set_recompute(Recompute::None);
    assert_eq!(large, 0, "{level:?}: allocations of {BIG} bytes or more in {STEPS} steps");
    assert!(small < 2500, "{level:?}: {small} small allocations a step");
}

fn check_recomputation() {
    let plain = trained(Recompute::None, 3, 6);
    for level in [Recompute::Cheap, Recompute::Layer] {
        assert!(trained(level, 3, 6) == plain, "{level:?} changed a parameter");
    }
    let model = Model::new(4);
    let [all, cheap, layer] =
        [Recompute::None, Recompute::Cheap, Recompute::Layer].map(|level| kept(&model, level));
    assert!(cheap < all, "cheap recomputation keeps {cheap} bytes, without {all}");
    // What a layer keeps is its input, of 8 * 48 tokens; besides there are the embeddings, the head and small things.
    let input = 8 * 48 * WIDTH * 4;
    assert!(layer < 4 * input + 5 * input, "recomputation by layer keeps {layer} bytes");
    assert!(4 * layer < all, "recomputation by layer keeps {layer} bytes, without {all}");
}
