//! Attention with what the families of models add to it, through the C table: against differences, against what
//! transformers' layers make (`tests/parity/make_attention.py`), and what is refused.
#![allow(
    clippy::macro_metavars_in_unsafe,
    reason = "the macro calls a slot of a table with arguments that each test vouches for"
)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "the handles are owned by `T`, whose contract all calls keep"
)]

mod common;

use std::ptr;

use common::{
    Answer, T, assert_close, attention_args, check_gradients, done, f32s, f64s, i64s, i64s_of,
    make, nn, noise, refuses, rng_table,
};
use easytransfer_abi::*;
use serde_json::Value;

const HEADS: usize = 2;
const WIDTH: usize = 6;
/// Runs with more keys than queries, fewer, none of either.
const STARTS: [i64; 6] = [0, 3, 3, 7, 8, 9];
const KEY_STARTS: [i64; 6] = [0, 4, 6, 6, 9, 10];
const QUERIES: usize = 9;
const KEYS: usize = 10;
const BUCKETS: usize = 5;
const POSITIONS: usize = 4;

/// Integers of all terms.
struct Numbers {
    starts: [T; 2],
    bias_buckets: T,
    position_buckets: T,
    segments: [T; 2],
    order: [T; 2],
}

impl Numbers {
    fn new() -> Self {
        Self {
            starts: [i64s(&STARTS), i64s(&KEY_STARTS)],
            bias_buckets: i64s(&[0, 1, 4, 3, 3]),
            position_buckets: i64s(&[3, 0, 1, 2, 0, 1, 3]),
            segments: [i64s(&[0, 0, 1, 0, 1, 1, 2, 0, 7]), i64s(&[0, 1, 0, 1, 1, 0, 2, 0, 1, 7])],
            order: [i64s(&[2, 0, 1, 5, 3, 9, 1, 1, -3]), i64s(&[0, 1, 2, 0, 4, 3, 1, 2, 0, -4])],
        }
    }

    /// Arguments over the floating point inputs in the order of [`shapes`], as far as `with` says.
    fn args(&self, x: &[&T], with: With) -> et_attention {
        let mut rest = x.iter().skip(3);
        let mut term = |given: bool| match given {
            true => rest.next().unwrap().0.cast_const(),
            false => ptr::null(),
        };
        let number = |given: bool, x: &T| if given { x.0.cast_const() } else { ptr::null() };
        et_attention {
            query: x[0].0,
            key: x[1].0,
            value: x[2].0,
            starts: self.starts[0].0,
            key_starts: self.starts[1].0,
            heads: HEADS,
            scale: 0.7,
            bias: term(with.bias),
            position_keys: term(with.keys),
            position_query: term(with.query),
            position_queries: term(with.queries),
            segment_scores: term(with.segments),
            bias_buckets: number(with.bias, &self.bias_buckets),
            position_buckets: number(with.keys || with.queries, &self.position_buckets),
            segments: number(with.segments, &self.segments[0]),
            key_segments: number(with.segments, &self.segments[1]),
            order: number(with.order.is_some(), &self.order[0]),
            key_order: number(with.order.is_some(), &self.order[1]),
            order_inclusive: i32::from(with.order == Some(true)),
            window: with.window,
            causal: i32::from(with.causal),
            ..attention_args()
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct With {
    bias: bool,
    keys: bool,
    query: bool,
    queries: bool,
    segments: bool,
    order: Option<bool>,
    window: usize,
    causal: bool,
}

const ALL: With = With {
    bias: true,
    keys: true,
    query: true,
    queries: true,
    segments: true,
    order: Some(true),
    window: 2,
    causal: true,
};

/// The floating point inputs.
fn inputs(with: With) -> Vec<(&'static [usize], Vec<f64>)> {
    let all: [(bool, &[usize]); 8] = [
        (true, &[QUERIES, WIDTH]),
        (true, &[KEYS, WIDTH]),
        (true, &[KEYS, WIDTH]),
        (with.bias, &[BUCKETS, HEADS]),
        (with.keys, &[POSITIONS, WIDTH]),
        (with.query, &[QUERIES, WIDTH]),
        (with.queries, &[POSITIONS, WIDTH]),
        (with.segments, &[QUERIES, HEADS, 2]),
    ];
    let given = all.into_iter().filter(|(given, _)| *given);
    given
        .enumerate()
        .map(|(seed, (_, shape))| (shape, noise(shape.iter().product(), seed as u64 + 1)))
        .collect()
}

#[test]
fn each_member_and_all_together_match_differences() {
    let numbers = Numbers::new();
    let none = With::default();
    let cases = [
        With { bias: true, ..none },
        With { keys: true, ..none },
        With { keys: true, query: true, ..none },
        With { queries: true, ..none },
        With { keys: true, queries: true, causal: true, ..none },
        With { segments: true, ..none },
        With { window: 1, ..none },
        With { order: Some(false), ..none },
        With { order: Some(true), segments: true, bias: true, ..none },
        ALL,
    ];
    for with in cases {
        check_gradients(&format!("{with:?}"), &inputs(with), |x| {
            call!(nn().attention, &numbers.args(x, with))
        });
    }
}

#[test]
fn dropout_with_terms_matches_differences() {
    let numbers = Numbers::new();
    let mut generator = ptr::null_mut();
    done(unsafe { rng_table().create.unwrap()(5, 3, &mut generator) }).unwrap();
    let start = unsafe { rng_table().state.unwrap()(generator) };
    check_gradients("dropout", &inputs(ALL), |x| {
        unsafe { rng_table().set_state.unwrap()(generator, start) };
        let args = et_attention { dropout: 0.3, rng: generator, ..numbers.args(x, ALL) };
        call!(nn().attention, &args)
    });
    unsafe { rng_table().release.unwrap()(generator) };
}

#[test]
fn causal_queries_stand_at_the_end_of_their_keys() {
    // The last two of four queries see what they see among all four.
    let (x, v) = (noise(4 * WIDTH, 1), noise(4 * WIDTH, 2));
    let (all, value) = (f64s(&[4, WIDTH], &x), f64s(&[4, WIDTH], &v));
    let last = f64s(&[2, WIDTH], &x[2 * WIDTH..]);
    let (four, two) = (i64s(&[0, 4]), i64s(&[0, 2]));
    let run = |query: &T, starts: &T, window: usize| {
        let args = et_attention {
            query: query.0,
            key: all.0,
            value: value.0,
            starts: starts.0,
            key_starts: four.0,
            heads: HEADS,
            causal: 1,
            window,
            ..attention_args()
        };
        call!(nn().attention, &args).unwrap().values()
    };
    for window in [0, 1] {
        let whole = run(&all, &four, window);
        assert_close(&run(&last, &two, window), &whole[2 * WIDTH..], 1e-14);
        // The first query of all sees only the first key.
        assert_close(&whole[..WIDTH], &v[..WIDTH], 1e-14);
    }
}

#[test]
fn queries_that_see_nothing_give_zeros_and_no_nan() {
    let x = f64s(&[3, WIDTH], &noise(3 * WIDTH, 1)).leaf();
    let (starts, order) = (i64s(&[0, 3]), i64s(&[0, 1, 2]));
    let args = et_attention {
        query: x.0,
        key: x.0,
        value: x.0,
        starts: starts.0,
        heads: HEADS,
        order: order.0,
        ..attention_args()
    };
    let y = call!(nn().attention, &args).unwrap();
    assert_eq!(y.values()[..WIDTH], [0.0; WIDTH]);
    assert_close(&y.values()[WIDTH..2 * WIDTH], &x.values()[..WIDTH], 1e-14);
    y.backward_from(&f64s(&[3, WIDTH], &[1.0; 3 * WIDTH])).unwrap();
    assert!(x.grad().unwrap().values().iter().all(|x| x.is_finite()));
}

#[test]
fn no_tokens_give_no_rows() {
    let numbers = Numbers::new();
    let (x, pairs, starts) = (f64s(&[0, WIDTH], &[]), f64s(&[0, HEADS, 2], &[]), i64s(&[0, 0]));
    let (table, bias) = (f64s(&[4, WIDTH], &noise(24, 1)), f64s(&[5, HEADS], &noise(10, 1)));
    let none = i64s(&[]);
    for starts in [&starts, &i64s(&[0])] {
        let args = et_attention {
            starts: starts.0,
            key_starts: ptr::null(),
            segments: none.0,
            key_segments: ptr::null(),
            order: none.0,
            key_order: ptr::null(),
            ..numbers.args(&[&x, &x, &x, &bias, &table, &x, &table, &pairs], ALL)
        };
        assert_eq!(call!(nn().attention, &args).unwrap().shape(), [0, WIDTH]);
    }
}

#[test]
fn narrow_types_are_computed_in_f32() {
    let numbers = Numbers::new();
    let all: Vec<T> = inputs(ALL).iter().map(|(shape, data)| f64s(shape, data)).collect();
    let run = |dtype| {
        let cast: Vec<T> = all.iter().map(|x| x.cast(ET_DTYPE_BF16).cast(dtype)).collect();
        let y =
            call!(nn().attention, &numbers.args(&cast.iter().collect::<Vec<_>>(), ALL)).unwrap();
        assert_eq!(y.dtype(), dtype);
        y.values()
    };
    assert_close(&run(ET_DTYPE_BF16), &run(ET_DTYPE_F32), 5e-3);
}

#[test]
fn members_that_do_not_fit_are_refused_by_name() {
    let numbers = Numbers::new();
    let all: Vec<T> = inputs(ALL).iter().map(|(shape, data)| f64s(shape, data)).collect();
    let x: Vec<&T> = all.iter().collect();
    let good = || numbers.args(&x, ALL);
    let refused = |args: et_attention, code, words: &[&str]| {
        refuses(call!(nn().attention, &args), code, words);
    };
    assert!(call!(nn().attention, &good()).is_ok());
    let invalid = ET_ERR_INVALID_ARGUMENT;
    let null = ptr::null();
    let i = |data: &[i64]| i64s(data);
    // Members that need another one.
    refused(
        et_attention { bias_buckets: null, ..good() },
        invalid,
        &["bias", "without bias_buckets"],
    );
    refused(et_attention { bias: null, ..good() }, invalid, &["bias_buckets", "without bias"]);
    refused(
        et_attention { position_buckets: null, ..good() },
        invalid,
        &["without position_buckets"],
    );
    let tables = et_attention { position_keys: null, position_queries: null, ..good() };
    refused(tables, invalid, &["position_buckets"]);
    refused(
        et_attention { position_keys: null, ..good() },
        invalid,
        &["position_query", "position_keys"],
    );
    refused(
        et_attention { segments: null, ..good() },
        invalid,
        &["segment_scores", "without segments"],
    );
    refused(et_attention { segment_scores: null, ..good() }, invalid, &["without segment_scores"]);
    refused(et_attention { order: null, ..good() }, invalid, &["key_order", "without order"]);
    let alone = et_attention { order: null, key_order: null, ..good() };
    refused(alone, invalid, &["order_inclusive", "without order"]);
    refused(
        et_attention { key_order: null, ..good() },
        invalid,
        &["key_order", "9 queries", "10 keys"],
    );
    refused(et_attention { key_segments: null, ..good() }, invalid, &["key_segments", "10 keys"]);
    // Maps of buckets.
    for (map, words) in [
        (i(&[0, 5, 0]), ["buckets[1] is 5", "0 to"]),
        (i(&[-1]), ["buckets[0] is -1", "0 to"]),
        (i(&[0, 1]), ["buckets", "odd"]),
        (i(&[]), ["buckets", "odd"]),
    ] {
        refused(et_attention { bias_buckets: map.0, ..good() }, invalid, &words);
        refused(et_attention { position_buckets: map.0, ..good() }, invalid, &words);
    }
    // Shapes.
    let (matrix, vector) = (f64s(&[3, 5], &noise(15, 1)), f64s(&[5], &noise(5, 1)));
    let (short, table) = (i(&[1, 2]), f64s(&[3, WIDTH], &noise(18, 1)));
    for x in [&matrix, &vector] {
        let shape = ET_ERR_SHAPE;
        refused(et_attention { bias: x.0, ..good() }, shape, &["bias", "[buckets, heads]"]);
        refused(et_attention { position_keys: x.0, ..good() }, shape, &["position_keys"]);
        refused(et_attention { position_query: x.0, ..good() }, shape, &["position_query"]);
        refused(et_attention { position_queries: x.0, ..good() }, shape, &["position_queries"]);
        refused(et_attention { segment_scores: x.0, ..good() }, shape, &["segment_scores"]);
    }
    refused(
        et_attention { position_queries: table.0, ..good() },
        ET_ERR_SHAPE,
        &["position_queries"],
    );
    refused(et_attention { segments: short.0, ..good() }, ET_ERR_SHAPE, &["segments", "[9]"]);
    refused(
        et_attention { key_segments: short.0, ..good() },
        ET_ERR_SHAPE,
        &["key_segments", "[10]"],
    );
    refused(et_attention { order: short.0, ..good() }, ET_ERR_SHAPE, &["order", "[9]"]);
    refused(et_attention { key_order: short.0, ..good() }, ET_ERR_SHAPE, &["key_order", "[10]"]);
    let square = i64s_of(&[1, 3], &[0, 1, 2]);
    refused(et_attention { bias_buckets: square.0, ..good() }, ET_ERR_SHAPE, &["bias_buckets"]);
    // Types.
    let narrow = f32s(&[BUCKETS, HEADS], &[0.0; BUCKETS * HEADS]);
    refused(et_attention { bias: narrow.0, ..good() }, ET_ERR_DTYPE, &["attention"]);
    let ids = make(ET_DTYPE_I64, &[POSITIONS, WIDTH], &[0i64; POSITIONS * WIDTH]);
    refused(et_attention { position_keys: ids.0, ..good() }, ET_ERR_DTYPE, &["attention"]);
    let real = f64s(&[3], &[0.0; 3]);
    refused(et_attention { bias_buckets: real.0, ..good() }, ET_ERR_DTYPE, &["bias_buckets"]);
    refused(et_attention { order: real.0, ..good() }, ET_ERR_DTYPE, &["order"]);
    refused(et_attention { segments: real.0, ..good() }, ET_ERR_DTYPE, &["segments"]);
    refused(et_attention { reserved: 1, ..good() }, invalid, &["reserved"]);
    refused(et_attention { reserved_2: 1, ..good() }, invalid, &["reserved_2"]);
}

#[test]
fn only_what_the_caller_filled_counts() {
    let numbers = Numbers::new();
    let all: Vec<T> = inputs(ALL).iter().map(|(shape, data)| f64s(shape, data)).collect();
    let x: Vec<&T> = all.iter().collect();
    let plain = call!(nn().attention, &numbers.args(&x, With::default())).unwrap();
    // An older caller's structure ends after `reserved`; what lies behind it is not read.
    let old = std::mem::offset_of!(et_attention, window);
    let args = et_attention { struct_size: old, causal: 0, ..numbers.args(&x, ALL) };
    assert_eq!(call!(nn().attention, &args).unwrap().values(), plain.values());
    // A newer caller's structure has more members, which count as absent while they are zero.
    #[repr(C)]
    struct Newer {
        known: et_attention,
        more: [u64; 2],
    }
    let newer = |more: u64| {
        let known =
            et_attention { struct_size: size_of::<Newer>(), ..numbers.args(&x, With::default()) };
        let args = Newer { known, more: [0, more] };
        call!(nn().attention, (&raw const args).cast::<et_attention>())
    };
    assert_eq!(newer(0).unwrap().values(), plain.values());
    refuses(newer(1), ET_ERR_INVALID_ARGUMENT, &["newer"]);
}

fn floats(case: &Value, name: &str) -> Option<Vec<f64>> {
    let values = case["tensors"][name].as_array()?;
    Some(values.iter().map(|x| x.as_f64().unwrap()).collect())
}

#[test]
fn layers_of_transformers_are_reproduced() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity/attention.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.as_array().unwrap().len(), 7);
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (heads, size) =
            (case["heads"].as_u64().unwrap() as usize, case["size"].as_u64().unwrap() as usize);
        let starts = |lengths: &Value| {
            let mut ends = vec![0];
            for length in lengths.as_array().unwrap() {
                ends.push(ends[ends.len() - 1] + length.as_i64().unwrap());
            }
            i64s(&ends)
        };
        let integers = |name: &str| -> Option<T> {
            let values = case["integers"][name].as_array()?;
            Some(i64s(&values.iter().map(|x| x.as_i64().unwrap()).collect::<Vec<_>>()))
        };
        let leaf = |name: &str, columns: &[usize]| -> Option<T> {
            let data: Vec<f32> = floats(case, name)?.iter().map(|&x| x as f32).collect();
            let rows = data.len() / columns.iter().product::<usize>();
            Some(f32s(&[&[rows][..], columns].concat(), &data).leaf())
        };
        let width = &[heads * size][..];
        let of_queries = starts(&case["queries"]);
        let of_keys = starts(&case["keys"]);
        let names = [
            ("query", width),
            ("key", width),
            ("value", width),
            ("bias", &[heads]),
            ("position_keys", width),
            ("position_query", width),
            ("position_queries", width),
            ("segment_scores", &[heads, 2]),
        ];
        let x = names.map(|(name, columns)| leaf(name, columns));
        let maps =
            ["bias_buckets", "position_buckets", "segments", "key_segments", "order", "key_order"];
        let maps = maps.map(integers);
        let raw = |x: &Option<T>| x.as_ref().map_or(ptr::null(), |x| x.0.cast_const());
        let args = et_attention {
            query: raw(&x[0]),
            key: raw(&x[1]),
            value: raw(&x[2]),
            starts: of_queries.0,
            key_starts: of_keys.0,
            heads,
            scale: case["scale"].as_f64().unwrap(),
            causal: i32::from(case["causal"].as_bool().unwrap()),
            window: case["window"].as_u64().unwrap_or(0) as usize,
            bias: raw(&x[3]),
            position_keys: raw(&x[4]),
            position_query: raw(&x[5]),
            position_queries: raw(&x[6]),
            segment_scores: raw(&x[7]),
            bias_buckets: raw(&maps[0]),
            position_buckets: raw(&maps[1]),
            segments: raw(&maps[2]),
            key_segments: raw(&maps[3]),
            order: raw(&maps[4]),
            key_order: raw(&maps[5]),
            order_inclusive: i32::from(case["order_inclusive"].as_bool().unwrap_or(false)),
            ..attention_args()
        };
        let y: Answer = call!(nn().attention, &args);
        let y = y.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        println!("{name}");
        assert_close(&y.values(), &floats(case, "out").unwrap(), 1e-5);
        let seed: Vec<f32> = floats(case, "d_out").unwrap().iter().map(|&x| x as f32).collect();
        y.backward_from(&f32s(&y.shape(), &seed)).unwrap();
        for ((input, _), leaf) in names.iter().zip(&x) {
            let Some(leaf) = leaf else { continue };
            println!("{name}: gradient of {input}");
            let expected = floats(case, &format!("d_{input}")).unwrap();
            assert_close(&leaf.grad().unwrap().values(), &expected, 1e-4);
        }
    }
}
